// The page: what is asked for, the film of it, and the numbers of each step.

import { inNumbers, inSymbols, inWords } from './equations.js';
import { Network } from './network.js';
import { Noise } from './noise.js';
import { cut, enlarged, picture } from './pictures.js';
import { Player } from './player.js';
import { reading, step } from './sampler.js';

const find = (id) => document.getElementById(id);
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
const SMOOTH = 48;  // pixels from which an image is not shown as squares
const ANY = 'any';
const KEPT = { withClasses: 6, without: 30 };  // pictures that were made, as the card has room

const model = await (await fetch('model.json')).json();
document.documentElement.classList.add('started');
const [channels, height, width] = model.shape;
let network, ready = false, failed = null, chosen = false, each = null;

// ---- the film ----------------------------------------------------------------------------------

for (const canvas of [find('x_t'), find('x0')]) {
  Object.assign(canvas, { width, height });
  canvas.style.aspectRatio = `${width} / ${height}`;
  canvas.classList.toggle('smooth', Math.max(width, height) > SMOOTH);
  if (channels === 4) canvas.style.background = model.background;
}

document.querySelector('.panes').style.setProperty('--aspect', width / height);
const player = new Player(
  { x: find('x_t'), x0: find('x0'), strip: find('strip'), scrub: find('scrub') },
  { frame: showNumbers, playing: showPlaying, ended },
);

/** A film of what is asked for, with its first noise. */
function blankFilm(ask) {
  const noise = new Noise(ask.seed).draw(channels * height * width);
  return { ask, steps: ask.steps, frames: [{ x: picture(noise, model.shape), t: model.times[ask.steps][0] }] };
}

/** The film that `ddpm demo` recorded, for while the network is on its way. */
async function recorded(ask) {
  const film = blankFilm(ask), sheet = new Image();
  sheet.src = model.film.name;
  await sheet.decode();
  const times = model.times[ask.steps], n = ask.steps;
  const tile = (k) => cut(sheet, k, model.film.columns, model.shape);
  film.frames = times.map((t, i) => ({
    t, s: times[i + 1], x: tile(i), x0: i < n ? tile(n + 1 + i) : tile(n),
    ...(i < n && { reading: reading(model, t), step: step(model, times[i + 1], t, times[i - 1] ?? null) }),
  }));
  return film;
}

/** Have the network compute what is asked for, and show it as it comes. */
function live() {
  const ask = asked(), film = blankFilm(ask);
  address(ask);
  player.begin(film, !still);
  network.run(ask, (state, ms) => {
    if (!state.x0) return;
    const { t, s, x0, x, reading: saw, step: terms } = state, last = film.frames.at(-1);
    Object.assign(last, { t, s, reading: saw, step: terms, x0: picture(x0, model.shape) });
    const next = { x: picture(x, model.shape), t: s };
    film.frames.push(next);
    if (s === 0) next.x0 = next.x;
    if (s === 0 && still) player.seek(film.steps);
    else player.refresh();
    if (s === 0) keep(ask, next.x);
    each = ms;
    say();
  });
}

/** Put a picture among those made so far; it brings back what it was made of. */
function keep(ask, image) {
  const made = find('made'), button = document.createElement('button');
  const { seed, label, steps, guidance } = ask, name = label === null ? '' : `${model.classes[label]}, `;
  const most = model.classes.length ? KEPT.withClasses : KEPT.without;
  button.type = 'button';
  button.title = `${name}seed ${seed}`;
  button.setAttribute('aria-label', `Show ${name}seed ${seed}, again`);
  image.classList.toggle('smooth', width > SMOOTH);
  button.append(image);
  button.addEventListener('click', () => {
    Object.assign(find('seed'), { value: seed });
    Object.assign(find('steps'), { value: steps });
    Object.assign(find('guidance'), { value: guidance });
    const chip = document.querySelector(`[name=class][value="${label ?? ANY}"]`);
    if (chip) chip.checked = chosen = true;
    changed();
  });
  for (const other of [...made.children]) if (other.title === button.title) other.remove();
  made.prepend(button);
  while (made.children.length > most) made.lastChild.remove();
}

function ended() {
  const end = document.querySelector('[name=end]:checked').value;
  if (end === 'loop') player.play();
  if (end !== 'next') return;
  if (!ready) {
    player.play();
    return;
  }
  find('seed').value = (Number(find('seed').value) + 1) % 2 ** 32;
  const chips = [...document.querySelectorAll('[name=class]')].filter((chip) => chip.value !== ANY);
  const following = chips[(chips.findIndex((chip) => chip.checked) + 1) % chips.length];
  if (!chosen && following) following.checked = true;
  changed();
}

// ---- what is asked for -------------------------------------------------------------------------

function asked() {
  const label = document.querySelector('[name=class]:checked')?.value ?? ANY;
  return {
    seed: Math.min(2 ** 32 - 1, Math.max(0, Math.floor(Number(find('seed').value)) || 0)),
    label: label === ANY ? null : Number(label),
    steps: Number(find('steps').value),
    guidance: Number(find('guidance').value),
  };
}

function build() {
  const { opening, settings, classes } = model, wish = new URLSearchParams(location.hash.slice(1));
  const wished = (name, other) => Number(wish.has(name) ? wish.get(name) : other);
  find('seed').value = wished('seed', opening.seed);
  find('steps').max = Math.max(...Object.keys(model.times).map(Number));
  find('steps').value = wished('steps', settings.steps);
  find('guidance').max = Math.max(6, settings.guidance);
  find('guidance').value = wished('guidance', settings.guidance);
  find('classes').hidden = find('guidance-field').hidden = !classes.length;
  chosen = wish.has('class');
  const first = wish.get('class') ?? opening.label;
  for (const [value, name] of classes.length ? [...classes.entries(), [ANY, 'any']] : []) {
    const chip = document.createElement('label'), input = document.createElement('input');
    Object.assign(input, { type: 'radio', name: 'class', value, checked: String(value) === String(first) });
    chip.append(input, Object.assign(document.createElement('span'), { textContent: name }));
    document.querySelector('.chips').append(chip);
  }
  if (classes.length && asked().label === null) {
    document.querySelector(`[name=class][value=${ANY}]`).checked = true;
  }
  document.querySelector(`[name=end][value=${still ? 'rest' : 'next'}]`).checked = true;
  const symbols = inSymbols(model);
  find('reading').innerHTML = symbols.reading;
  find('step').innerHTML = symbols.step;
  const words = inWords(model);
  find('reading-said').textContent = words.reading;
  find('step-said').textContent = words.step;
  const size = (model.network.bytes + model.runtime.bytes) / 1e6;
  find('facts').textContent = `A network of ${(model.parameters / 1e6).toFixed(1)} million parameters, as `
    + `ONNX, run in this browser by onnxruntime-web ${model.runtime.version}: ${size.toFixed(1)} MB.`;
}

let waiting;
function changed(wait = 0) {
  tell();
  clearTimeout(waiting);
  if (ready) waiting = setTimeout(live, wait);
}

/** Put what is asked for into the address, so that it can be passed on. */
function address({ seed, label, steps, guidance }) {
  const of_class = model.classes.length ? { class: label ?? ANY, guidance } : {};
  history.replaceState(null, '', `#${new URLSearchParams({ ...of_class, steps, seed })}`);
}

/** Say what is asked for, beside the sliders and as a command. */
function tell() {
  const { seed, label, steps, guidance } = asked(), classes = model.classes;
  find('steps-said').textContent = steps;
  find('guidance-said').textContent = guidance.toFixed(1);
  find('guidance').disabled = classes.length > 0 && label === null;
  const words = ['ddpm generate', model.name, '--n 1'];
  if (classes.length && label !== null && guidance !== 0) words.push(`--label ${quoted(classes[label])}`);
  if (classes.length) words.push(`--guidance ${label === null ? 0 : guidance}`);
  else if (model.guided) words.push('--guidance 1');  // the page has no room for the guide
  if (model.precision !== 'no') words.push('--precision no');  // the page computes in float32
  if (model.churn) words.push('--churn 0');  // the page samples without
  find('command').textContent = [...words, `--steps ${steps} --seed ${seed}`].join(' ');
}

const quoted = (name) => /^[\w.-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;

/** Whether something else is asked for than what the recorded film shows. */
function asksOther() {
  const { seed, label, steps, guidance } = asked(), { opening, settings } = model;
  return seed !== opening.seed || label !== opening.label || steps !== settings.steps
    || guidance !== settings.guidance;
}

// ---- what is shown -----------------------------------------------------------------------------

function showNumbers(i) {
  const { frames, steps } = player.film, frame = frames[i];
  const shown = frame.step ? frame : frames[i - 1];
  find('t').textContent = frame.t;
  find('where').textContent = i < steps ? `step ${i + 1} of ${steps}` : `${steps} steps, done`;
  find('scrub').setAttribute('aria-valuetext', `step ${i} of ${steps}, time ${frame.t}`);
  if (!shown?.step) return;
  const numbers = inNumbers(model, shown);
  find('reading-live').innerHTML = numbers.reading;
  find('step-live').innerHTML = numbers.step;
}

function showPlaying(playing) {
  find('play').setAttribute('aria-label', playing ? 'Pause' : 'Play');
  find('play').classList.toggle('playing', playing);
}

function say() {
  const status = find('status');
  if (failed) status.textContent = `The network cannot run here: ${failed}`;
  else if (!ready) status.textContent = 'The network is on its way; this was recorded.';
  else status.textContent = each ? '' : 'The network is here: what comes next is computed.';
  find('speed').textContent = each ? `Computed here, ${each.toFixed(0)} ms an evaluation` : '';
}

// ---- all together ------------------------------------------------------------------------------

find('play').addEventListener('click', () => player.playing ? player.pause() : player.play());
find('dice').addEventListener('click', () => {
  find('seed').value = Math.floor(Math.random() * 1e6);
  changed();
});
find('controls').addEventListener('submit', (event) => event.preventDefault());
find('controls').addEventListener('input', ({ target }) => {
  if (target.name === 'class') chosen = true;
  changed(target.name === 'class' ? 0 : 200);
});
find('save').addEventListener('click', () => {
  const { frames, ask } = player.film;
  enlarged(frames.at(-1).x).toBlob((file) => {
    const link = Object.assign(document.createElement('a'), {
      download: `seed-${ask.seed}.png`, href: URL.createObjectURL(file),
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
});

addEventListener('hashchange', () => location.reload());

build();
tell();
player.begin(blankFilm(asked()), false);  // noise at once, whatever is still on its way
say();
network = new Network(model, {
  progress(share) {
    find('arriving').style.transform = `scaleX(${share})`;
  },
  ready() {
    ready = true;
    document.documentElement.classList.add('ready');
    if (asksOther()) live();
    else say();
  },
  failed(text) {
    failed = text;
    say();
  },
});
if (!asksOther()) {
  const film = await recorded(asked());
  if (!asksOther()) player.begin(film, !still, still ? film.steps : 0);
}
