// From a scribble or a photo to an image: live while one draws.

import {button, chips, el, Latest, loadImage, notice, seedField, slider} from './dom.js';
import {Film} from './film.js';
import {ask, boot, call} from './queue.js';
import {classChips, modelCards} from './rail.js';
import {Sketch} from './sketch.js';
import {model, state, subscribe, update} from './state.js';

const PACE = 250; // milliseconds between what is sent while one draws

export function draw() {
  const latest = new Latest();
  const sketch = new Sketch(model().shape, () => live());
  const original = el('canvas', {class: 'pixels', width: 320, height: 320});
  const before = el('figure', {class: 'pane', hidden: true}, el('figcaption', {}, 'the original'), original);
  const title = el('figcaption', {}, 'your picture');
  const canvas = el('figure', {class: 'pane'}, title, sketch.canvas);
  const film = new Film({before: [before, canvas]});
  film.looping = false;
  film.paint();
  let photo = null; // as it was chosen, for whatever network
  let timer = 0, sent = 0;

  const mode = chips({label: 'What to do', value: state.mode, choices: [['vary', 'Make it real'], ['paint', 'Paint a part anew']],
    onchange: (m) => update({mode: m})});
  const strength = slider({label: 'How far from the picture', min: 0.05, max: 1, step: 0.01, value: state.strength,
    onchange: (v) => update({strength: v})});
  const seed = seedField({value: state.seed, onchange: (v) => update({seed: v})});
  const file = el('input', {type: 'file', accept: 'image/*', id: 'photo', onchange: () => take(file)});
  const shot = el('input', {type: 'file', accept: 'image/*', capture: 'user', id: 'shot', onchange: () => take(shot)});
  const note = el('p', {class: 'note', role: 'status'});
  const rail = el('aside', {class: 'rail', 'aria-label': 'Controls'}, modelCards(), mode.node, sketch.tools, strength.node,
    el('div', {class: 'files'}, el('label', {class: 'file', for: 'photo'}, 'A photo of yours', file),
      el('label', {class: 'file', for: 'shot'}, 'Camera', shot),
      button('An example', () => update({example: (state.example + 1) % boot.limits.examples})),
      button('A scribble', () => { photo = null; note.textContent = ''; sketch.begin(model().shape); live(); })),
    note, classChips({any: 'any'}), seed.node);

  function live() {
    clearTimeout(timer);
    timer = setTimeout(sample, Math.max(0, sent + PACE - performance.now()));
  }

  function sample() {
    sent = performance.now();
    const paint = state.mode === 'paint';
    if (paint && !sketch.masked) {
      note.textContent = 'Paint over what is to be made anew; the rest stays as it is.';
      return;
    }
    [original.width, original.height] = [sketch.picture.width, sketch.picture.height];
    original.getContext('2d').drawImage(sketch.picture, 0, 0);
    latest.run(async (signal) => {
      film.begin(model());
      const wanted = {model: state.model, n: 1, seed: state.seed, label: state.label || null,
        settings: paint ? {} : {...state.settings}, strength: state.strength,
        picture: {data: sketch.data, name: 'your picture'}, mask: paint ? sketch.mask.toDataURL() : null};
      try {
        for await (const frame of call('sample', wanted, {signal})) {
          if (signal.aborted) return;
          await film.add({...frame});
        }
      } finally {
        if (!signal.aborted) film.cut();
      }
    });
  }

  async function take(input) {
    const [chosen] = input.files;
    if (!chosen) return;
    input.value = '';
    if (chosen.size > boot.limits.bytes) {
      notice(`${chosen.name} is larger than ${boot.limits.bytes / 1e6} MB: choose a smaller one`, 'error');
      return;
    }
    const data = await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(chosen);
    });
    photo = {data, name: chosen.name.slice(0, 80)};
    await show(photo);
  }

  /** Have the server cut a picture to what the network takes, and put it on the canvas. */
  async function show(picture) {
    try {
      const {src, note: said} = await ask('picture', {model: state.model, picture});
      sketch.fit(model().shape);
      sketch.put(await loadImage(src));
      note.textContent = said;
      live();
    } catch (error) {
      if (picture === photo) photo = null;
      notice(error.message, 'error');
    }
  }

  function fit() {
    const paint = state.mode === 'paint';
    mode.choose(state.mode);
    strength.set(state.strength);
    seed.set(state.seed);
    strength.node.hidden = paint;
    before.hidden = !paint;
    film.panes.className = `panes count-${paint ? 4 : 3}`;
    title.textContent = paint ? 'painted over: to be made anew' : 'your picture';
    sketch.setMasking(paint);
  }

  /** The drawing of a link, or a scribble. */
  async function begin() {
    if (state.drawing) {
      try {
        sketch.put(await loadImage(state.drawing));
      } catch {
        notice('The drawing of this link cannot be read.', 'error');
      }
    }
    live();
  }

  fit();
  subscribe((names) => {
    if (state.view !== 'draw') return;
    fit();
    if (names.has('model')) {
      if (photo) show(photo);
      else { sketch.begin(model().shape); note.textContent = ''; live(); }
    } else if (names.has('example')) {
      photo = null;
      show({example: state.example});
    } else if (['strength', 'mode', 'seed', 'label', 'settings', 'view'].some((name) => names.has(name))) {
      const other = names.has('view') && sketch.shape.join() !== model().shape.join();
      if (other && photo) { show(photo); return; }
      if (other) sketch.begin(model().shape);
      live();
    }
  });
  return {
    node: el('div', {class: 'view'}, el('div', {class: 'stage'}, film.node,
      el('p', {class: 'explain'}, 'The picture goes part of the way to static, and the network brings it back as something of its own: the further, the freer (SDEdit).')), rail),
    open: begin,
    /** What is drawn, as small as the network takes it. */
    drawing() {
      const [, h, w] = model().shape;
      const small = el('canvas', {width: 2 * w, height: 2 * h});
      small.getContext('2d').drawImage(sketch.picture, 0, 0, 2 * w, 2 * h);
      return small.toDataURL('image/png');
    },
    /** How a command makes it, of the files that it reads. */
    asked() {
      const paint = state.mode === 'paint';
      return {
        n: 1, seed: state.seed, guided: true, settings: paint ? {} : state.settings,
        edit: paint ? {image: 'picture.png', mask: 'mask.png'} : {image: 'picture.png', strength: state.strength},
        files: () => ({'picture.png': sketch.data, ...(paint ? {'mask.png': sketch.maskData} : {})}),
      };
    },
    /** The visitor's photo, for the whiteboard too. */
    picture: () => photo,
  };
}
