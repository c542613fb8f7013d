// Images out of noise: the stage and the rail.

import {button, chips, counted, debounced, el, Latest, loadImage, notice, reducedMotion, seedField, select, slider} from './dom.js';
import {Film} from './film.js';
import {call} from './queue.js';
import {classChips, modelCards} from './rail.js';
import {count, model, settings, state, subscribe, update} from './state.js';

const SAMPLERS = ['ddpm', 'ddim', 'euler', 'heun', 'dpm++', 'dpm++sde'];
const SPACINGS = ['even', 'quadratic', 'root', 'log-snr', 'rho'];
const COUNTS = [1, 4, 9, 16];
const COMPARISONS = {
  steps: () => [2, 4, 8, 16, 32, 64].map((steps) => [`${steps} steps`, {steps}]),
  samplers: () => SAMPLERS.map((sampler) => [sampler, {sampler}]),
  guidance: () => model().guided ? [1, 1.2, 1.5, 2].map((guidance) => [`guidance ${guidance}`, {guidance}])
    : [0, 1, 2, 3, 5].map((guidance) => [guidance === 0 ? 'no class' : `guidance ${guidance}`,
      {guidance, guidance_above: 0, guidance_below: 1}]),
};

/** What is asked of the server for what is on the stage. */
export const request = (changes = {}) => ({
  model: state.model, n: count(), seed: state.seed, label: state.label,
  settings: {...state.settings}, fork: state.fork, ...changes,
});

export function create() {
  const latest = new Latest();
  let endless = false, made = '';  // what was asked for that is on the stage

  const forkButton = button('Go on from here …', fork, {title: 'Keep what has come about so far, and change the class or the guidance for the rest'});
  const endlessButton = button('∞', () => setEndless(!endless), {class: 'endless', 'aria-pressed': 'false',
    'aria-label': 'New images for ever', title: 'New images for ever'});
  const stop = button('Stop', () => halt(), {hidden: true});
  const film = new Film({actions: [stop, endlessButton, forkButton]});
  const place = el('p', {class: 'place', role: 'status', hidden: true});
  const comparison = el('section', {class: 'comparison', 'aria-label': 'Comparison', hidden: true});
  film.again = () => {
    if (!endless || latest.busy) return false;
    seed.roll();
    return true;
  };
  film.onshow = (frame) => { forkButton.hidden = film.live || frame.step === 0 || frame.step === frame.steps || !model().classes.length; };

  // ---- the rail -----------------------------------------------------------------------------
  const change = (changes) => update({settings: {...state.settings, ...changes}});
  const many = chips({label: 'Images', choices: COUNTS.map((n) => [n, String(n)]), value: count(),
    onchange: (n) => update({n})});
  const seed = seedField({value: state.seed, onchange: (value) => update({seed: value})});
  const steps = slider({label: 'Steps', min: 1, max: 200, value: settings().steps, log: true,
    onchange: (v) => change({steps: v})});
  const sampler = select({label: 'Sampler', choices: SAMPLERS.map((s) => [s, s]), value: settings().sampler,
    onchange: (v) => change({sampler: v})});
  const spacing = select({label: 'Spacing of the steps', choices: SPACINGS.map((s) => [s, s]),
    value: settings().spacing, onchange: (v) => change({spacing: v})});
  const least = slider({label: 'σ from which the last step leads to an image', min: 0, max: 0.5, step: 0.01,
    value: settings().sigma_min, onchange: (v) => change({sigma_min: v})});
  const eta = slider({label: 'η: noise that DDIM adds', min: 0, max: 1, step: 0.05, value: settings().eta,
    onchange: (v) => change({eta: v})});
  const scale = slider({label: 'λ: divide the predicted noise by it', min: 0.95, max: 1.05, step: 0.005,
    value: settings().eps_scale, onchange: (v) => change({eps_scale: v})});
  const guidance = slider({label: 'Guidance: past no class, or past a weaker network', min: 0, max: 8, step: 0.1,
    value: settings().guidance, onchange: (v) => change({guidance: v})});
  const above = slider({label: 'Guide from this share of T', min: 0, max: 1, step: 0.05,
    value: settings().guidance_above, onchange: (v) => change({guidance_above: v})});
  const below = slider({label: 'up to this share', min: 0, max: 1, step: 0.05,
    value: settings().guidance_below, onchange: (v) => change({guidance_below: v})});
  const forked = el('div', {class: 'forked', hidden: true});
  const compare = Object.fromEntries(Object.keys(COMPARISONS).map((key) =>
    [key, button(key, () => startComparison(key))]));
  const reset = button('As the network likes it', () => update({settings: {}}), {class: 'quiet'});
  const rail = el('aside', {class: 'rail', 'aria-label': 'Controls'},
    modelCards(), forked, classChips(), many.node, seed.node, steps.node,
    el('details', {}, el('summary', {}, 'More'), sampler.node, eta.node, spacing.node, least.node, scale.node,
      guidance.node, above.node, below.node, reset),
    el('div', {class: 'compare'}, el('h2', {}, 'Compare, with the same seed'), Object.values(compare)));

  function fit() {
    const s = settings();
    const guided = model().guided || (model().classes.length > 0 && state.label !== null);
    many.choose(count());
    seed.set(state.seed);
    steps.set(s.steps, Math.min(model().T, Math.max(200, s.steps)));
    sampler.choose(s.sampler);
    spacing.choose(s.spacing);
    least.set(s.sigma_min, Math.max(0.5, s.sigma_min));
    eta.set(s.eta);
    scale.set(s.eps_scale, Math.max(1.05, s.eps_scale), Math.min(0.95, s.eps_scale));
    guidance.set(s.guidance, Math.max(8, s.guidance), model().guided ? 1 : 0);
    above.set(s.guidance_above);
    below.set(s.guidance_below);
    eta.node.hidden = s.sampler !== 'ddim';
    least.node.hidden = !['rho', 'log-snr'].includes(s.spacing);
    for (const control of [guidance, above, below]) control.node.hidden = !guided;
    compare.guidance.hidden = !guided;
    reset.hidden = !Object.keys(state.settings).length;
    forked.hidden = !state.fork;
    if (state.fork) {
      forked.replaceChildren(el('p', {}, `Up to step ${state.fork.step} as it was; from there on with what you choose now.`),
        button('End the fork', () => update({fork: null, label: state.fork.label, settings: {...state.settings, guidance: state.fork.guidance ?? undefined}})));
    }
  }

  // ---- sampling -----------------------------------------------------------------------------
  function sample() {
    pending = false;
    comparison.hidden = true;
    latest.run(async (signal) => {
      const wanted = request();
      made = JSON.stringify(wanted);
      film.begin(model());
      stop.hidden = false;
      try {
        for await (const frame of call('sample', wanted, {signal, place: tellPlace})) {
          place.hidden = true;
          if (signal.aborted) return;
          await film.add({...frame});
        }
      } catch (error) {
        if (!signal.aborted) { setEndless(false); film.pause(); }
        throw error;
      } finally {
        if (!signal.aborted) {
          stop.hidden = true;
          place.hidden = true;
          film.cut();
        }
      }
    });
  }

  function halt() {
    latest.stop();
    film.cut();
    stop.hidden = place.hidden = true;
  }

  function tellPlace(rank) {
    place.hidden = rank < 1;
    place.textContent = `${rank} before you: your images come after theirs.`;
  }

  let pending = false;
  const once = debounced(() => { if (pending) sample(); }, 40);
  const soon = () => { pending = true; once(); };

  function fork() {
    film.pause();
    update({fork: {step: film.shown.step, label: state.label, guidance: settings().guidance}});
    notice('Now choose another class or guidance: the steps up to here stay as they are.');
  }

  function setEndless(on) {
    endless = on;
    endlessButton.setAttribute('aria-pressed', on);
    if (on) film.setLoop(true);
  }

  function startComparison(kind) {
    pending = false;
    film.cut();
    film.pause();
    stop.hidden = place.hidden = true;
    const rows = COMPARISONS[kind]().map(([text, changes]) => ({text, changes, figure: el('figure', {class: 'pane small'},
      el('div', {class: 'blank'}), el('figcaption', {}, text))}));
    comparison.hidden = false;
    comparison.replaceChildren(el('h2', {}, `The same seed, over ${kind}`), el('div', {class: 'row'}, rows.map((row) => row.figure)));
    comparison.scrollIntoView({block: 'nearest', behavior: reducedMotion() ? 'auto' : 'smooth'});
    latest.run(async (signal) => {
      for (const {text, changes, figure} of rows) {
        const wanted = request({n: Math.min(count(), 4), fork: null,
          settings: {...state.settings, ...changes}});
        if (changes.steps > model().T) { figure.remove(); continue; }
        let last = null;
        for await (const frame of call('sample', wanted, {signal})) last = frame;
        const image = await loadImage(last.x);
        image.alt = text;
        image.className = 'pixels';
        figure.firstChild.replaceWith(image);
        figure.lastChild.textContent = `${text} · ${counted(last.nfe, 'evaluation')}, ${last.seconds} s`;
      }
    });
  }

  fit();
  subscribe((names) => {
    if (state.view !== 'create') {
      if (latest.busy) {  // other views are not kept waiting
        halt();
        made = '';
      }
      return;
    }
    if (!['model', 'label', 'n', 'seed', 'settings', 'fork', 'view'].some((name) => names.has(name))) return;
    fit();
    if (names.has('view') && film.frames.length && made === JSON.stringify(request())) return;
    soon();
  });
  const node = el('div', {class: 'view'}, el('div', {class: 'stage'}, film.node, place, comparison), rail);

  /** Show the bundled film until the network's first frame is there. */
  async function open() {
    sample();
    if (!model().bundled || film.frames.length) return;
    const sheet = await loadImage(`page/cards/${model().name}-opening.webp`).catch(() => null);
    if (!sheet || film.frames.length) return;
    const [, h, w] = model().shape, steps = sheet.width / w;
    for (let i = 0; i < steps && !film.frames.length; i += 1) {
      for (const [k, canvas] of film.screens.entries()) {
        canvas.width = canvas.height = 64;
        canvas.getContext('2d').drawImage(sheet, i * w, k * h, w, h, 0, 0, 64, 64);
      }
      film.says.textContent = 'Out of pure static, step by step, a network makes images that nobody has seen.';
      if (reducedMotion()) break;
      await new Promise((go) => { setTimeout(go, 100); });
    }
  }
  return {
    node, open,
    /** How a command makes it; none makes a fork. */
    asked: () => !state.fork && {n: count(), seed: state.seed, settings: state.settings, guided: state.label !== null},
  };
}
