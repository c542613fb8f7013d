// Between four seeds: a pad to drag through, and a morph without an end.

import {button, el, Latest, loadImage, seedField} from './dom.js';
import {call} from './queue.js';
import {classChips, modelCards} from './rail.js';
import {model, state, subscribe, update} from './state.js';

const CORNERS = [[0, 0], [1, 0], [0, 1], [1, 1]];
const STRIDE = 0.06; // of the pad, between two images of the morph
const AHEAD = 8; // images that are asked for at once
const PACE = 140; // milliseconds between them

export function between() {
  const latest = new Latest();
  const corners = new Latest();
  let morphing = false, queue = [], sheet = 0;
  const screen = el('canvas', {width: 64, height: 64, class: 'large'});
  const pad = el('div', {class: 'pad', tabindex: 0, role: 'application',
    'aria-label': 'Pad between four seeds: drag, or move with the arrow keys'});
  const dot = el('div', {class: 'dot'});
  const pictures = CORNERS.map((_, i) => el('canvas', {class: `corner corner-${i}`, width: 64, height: 64}));
  pad.append(...pictures, dot);
  const says = el('p', {class: 'says'}, 'Each corner is the noise of a seed. Between them the noise turns along great circles, and the images follow.');
  const position = el('output', {class: 'caption', 'aria-live': 'off'});
  const play = button('▶ Morph', () => setMorphing(!morphing), {'aria-pressed': 'false'});
  const seeds = CORNERS.map((_, i) => seedField({label: `Seed ${i + 1}`, value: state.seeds[i],
    onchange: (v) => update({seeds: state.seeds.map((s, k) => k === i ? v : s)})}));

  const settings = () => {
    const own = {...model().sample, ...state.settings};
    const sampler = own.sampler.startsWith('dpm') ? 'dpm++' : 'ddim';
    return {...state.settings, sampler, eta: 0, steps: Math.min(own.steps, 12)};
  };
  const request = (at) => ({model: state.model, label: state.label || null, settings: settings(),
    between: {seeds: state.seeds, at}});

  async function images(at, signal) {
    let last = null;
    for await (const frame of call('sample', request(at), {signal})) last = frame;
    const image = await loadImage(last.x);
    const [, h, w] = model().shape;
    return at.map((_, k) => ({image, sx: k % last.columns * (w + 1), sy: Math.floor(k / last.columns) * (h + 1), w, h}));
  }

  function paint(canvas, {image, sx, sy, w, h}) {
    const zoom = Math.max(1, Math.ceil((canvas === screen ? 440 : 64) / w));
    if (canvas.width !== w * zoom) canvas.width = w * zoom;
    if (canvas.height !== h * zoom) canvas.height = h * zoom;
    const pen = canvas.getContext('2d');
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, sx, sy, w, h, 0, 0, canvas.width, canvas.height);
  }

  function place([u, v]) {
    dot.style.left = `${u * 100}%`;
    dot.style.top = `${v * 100}%`;
    position.textContent = `u = ${u.toFixed(2)}, v = ${v.toFixed(2)}`;
    pad.setAttribute('aria-description', position.textContent);
  }

  function drawCorners() {
    corners.run(async (signal) => {
      const made = await images(CORNERS, signal);
      for (const [i, part] of made.entries()) paint(pictures[i], part);
    });
  }

  let wanted = null;
  /** Draw the image at the dot: while one is under way the last that is asked for waits. */
  async function drawHere() {
    wanted = state.at;
    if (latest.busy) return;
    while (wanted) {
      const at = wanted;
      wanted = null;
      await latest.run(async (signal) => {
        const [part] = await images([at], signal);
        paint(screen, part);
      });
    }
  }

  function go(u, v) {
    setMorphing(false);
    const at = [u, v].map((x) => Math.round(Math.min(Math.max(x, 0), 1) * 1000) / 1000);
    update({at});
  }

  const drag = (event) => {
    if (!(event.buttons & 1)) return;
    const box = pad.getBoundingClientRect();
    go((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  pad.addEventListener('pointerdown', (event) => { pad.setPointerCapture(event.pointerId); drag(event); });
  pad.addEventListener('pointermove', drag);
  pad.addEventListener('keydown', (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!way) return;
    event.preventDefault();
    go(state.at[0] + way[0] * 0.05, state.at[1] + way[1] * 0.05);
  });

  // ---- the morph ----------------------------------------------------------------------------
  let angle = 0;
  /** The next places of a path that turns about the middle and never ends. */
  function path() {
    return Array.from({length: AHEAD}, () => {
      angle += STRIDE;
      const r = 0.35 + 0.15 * Math.sin(angle * 0.37);
      return [0.5 + r * Math.cos(angle), 0.5 + r * Math.sin(angle * 1.31)]
        .map((x) => Math.round(Math.min(Math.max(x, 0), 1) * 1000) / 1000);
    });
  }

  async function setMorphing(on) {
    if (on === morphing) return;
    morphing = on;
    play.textContent = on ? '❚❚ Morph' : '▶ Morph';
    play.setAttribute('aria-pressed', on);
    queue = [];
    const mine = sheet += 1;
    if (!on) return;
    wanted = null;
    latest.stop();
    while (morphing && mine === sheet) {
      if (document.hidden || state.view !== 'between') {
        setMorphing(false);
        return;
      }
      if (queue.length < AHEAD) {
        const at = path();
        try {
          const made = await images(at);
          if (!morphing || mine !== sheet) return;
          queue.push(...made.map((part, k) => [part, at[k]]));
        } catch (error) {
          says.textContent = error.message;
          setMorphing(false);
          return;
        }
      } else await new Promise((done) => { setTimeout(done, PACE); });
    }
  }
  setInterval(() => {
    if (!morphing || !queue.length) return;
    const [part, at] = queue.shift();
    paint(screen, part);
    place(at);
  }, PACE);

  const fit = () => {
    place(state.at);
    for (const [i, field] of seeds.entries()) field.set(state.seeds[i]);
  };
  fit();
  subscribe((names) => {
    if (state.view !== 'between') {
      setMorphing(false);
      return;
    }
    if (!morphing) fit();
    if (['model', 'label', 'seeds', 'settings', 'view'].some((name) => names.has(name))) {
      queue = [];
      drawCorners();
      if (!morphing) drawHere();
    } else if (names.has('at')) drawHere();
  });
  return {
    node: el('div', {class: 'view'}, el('div', {class: 'stage'}, el('section', {class: 'film between', 'aria-label': 'Stage'},
      el('div', {class: 'panes count-2'},
        el('figure', {class: 'pane'}, el('figcaption', {}, 'between the seeds'), screen),
        el('figure', {class: 'pane'}, el('figcaption', {}, 'the pad: drag the dot'), pad)),
      says, el('div', {class: 'transport plain'}, play, position))),
    el('aside', {class: 'rail', 'aria-label': 'Controls'}, modelCards(), classChips({any: 'any'}), el('div', {class: 'seeds'}, seeds.map((s) => s.node)))),
    open() { drawCorners(); drawHere(); },
    /** How a command makes the images along the upper side of the pad. */
    asked: () => ({what: 'From seed 1 to seed 2', n: 9, seed: state.seeds[0], guided: true, settings: settings(),
      edit: {towards: state.seeds[1]}}),
  };
}
