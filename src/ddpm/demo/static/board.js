// The whiteboard: one image at one time, as the equations have it.

import {chart} from './charts.js';
import {button, el, Latest, seedField, slider, sub} from './dom.js';
import {ask, boot} from './queue.js';
import {modelCards} from './rail.js';
import {model, state, subscribe, update} from './state.js';

const TARGETS = {
  eps: ['ε', 'the noise'], x0: ['x₀', 'the clean image'], v: ['v', 'the velocity √ᾱ ε − √(1−ᾱ) x₀'],
  u: ['u', 'the velocity of a flow, ε − x₀'], F: ['F', 'EDM’s mixture of image and noise'],
};
const NAMES = {x0: ['x', '0'], eps: ['ε', ''], x_t: ['x', 't'], x0_hat: ['x̂', '0'], eps_hat: ['ε̂', ''], mean: ['μ̃', 't']};
const number = (v) => v === 0 ? '0' : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e4 ? v.toExponential(2) : v.toFixed(3);

export function board(picture) {
  const latest = new Latest();
  let pixel = null, passed = null, shown = null, curvesOf = '';
  const t = slider({label: 't: how far towards static', min: 1, max: model().T, value: startT(), onchange: (v) => update({t: v})});
  const seed = seedField({label: 'Seed of the noise', value: state.seed, onchange: (v) => update({seed: v})});
  const example = button('Another image', () => {
    passed = picture();  // until another photo is chosen
    update({example: (state.example + 1) % boot.limits.examples});
  });
  const pixelFields = ['x', 'y'].map((axis, i) => el('input', {type: 'number', min: 0, value: '', 'aria-label': `Pixel, ${axis}`, placeholder: axis,
    oninput: () => {
      const [, h, w] = model().shape;
      const typed = pixelFields.map((box) => Number(box.value));
      if (pixelFields[i].value === '') return;
      pixel = [Math.min(Math.max(Math.trunc(typed[0]), 0), w - 1), Math.min(Math.max(Math.trunc(typed[1]), 0), h - 1)];
      draw();
    }}));
  const note = el('p', {class: 'note'});
  const told = el('p', {class: 'predicts'});
  const images = Object.fromEntries(Object.keys(NAMES).map((key) => [key, el('img', {class: 'pixels', alt: '', width: 128, height: 128, draggable: 'false'})]));
  const numbers = Object.fromEntries(['sqrt_alpha_bar', 'sqrt_rest', 'weight_x0', 'weight_x_t', 'beta_tilde', 'snr', 'alpha_bar', 'beta', 'error']
    .map((key) => [key, el('span', {class: 'number'}, '0.000')]));
  const details = el('div', {class: 'equation', hidden: true});

  /** A term that opens its equation. */
  const term = (key, equation, ...content) => el('button', {type: 'button', class: `term ${key}`, 'aria-expanded': 'false',
    'data-equation': equation, onclick: (event) => open(equation, event.currentTarget)}, ...content);
  const figure = (key, text, equation) => el('figure', {class: 'pane'}, images[key],
    el('figcaption', {}, term(key, equation, sub(...NAMES[key]), el('span', {class: 'words'}, ` ${text}`))));
  const op = (text) => el('span', {class: 'op', 'aria-hidden': 'true'}, text);
  const weight = (key, cls, equation, text) => term(cls, equation, numbers[key], el('small', {}, text));

  const forward = el('div', {class: 'row equation-row'}, figure('x_t', 'the noisy image', 'forward'), op('='),
    weight('sqrt_alpha_bar', 'signal', 'schedule', '√ᾱₜ'), op('·'), figure('x0', 'the image', 'forward'), op('+'),
    weight('sqrt_rest', 'noise', 'schedule', '√(1−ᾱₜ)'), op('·'), figure('eps', 'the noise', 'forward'));
  const answer = el('div', {class: 'row equation-row'}, figure('x_t', 'the noisy image', 'predict'), op('→'),
    el('span', {class: 'network'}, 'network'), op('→'), figure('x0_hat', 'the image it sees', 'predict'), op('and'), figure('eps_hat', 'the noise it sees', 'predict'));
  const back = el('div', {class: 'row equation-row'}, figure('mean', 'one step back', 'posterior'), op('='),
    weight('weight_x0', 'signal', 'posterior', 'of x̂₀'), op('·'), el('span', {class: 'again', 'data-key': 'x0_hat'}), op('+'),
    weight('weight_x_t', 'noise', 'posterior', 'of xₜ'), op('·'), el('span', {class: 'again', 'data-key': 'x_t'}));
  const copies = [];
  for (const slot of back.querySelectorAll('.again')) {
    const key = slot.dataset.key;
    const copy = el('img', {class: 'pixels', alt: '', width: 128, height: 128, draggable: 'false'});
    copies.push([key, copy]);
    slot.replaceWith(el('figure', {class: 'pane'}, copy, el('figcaption', {}, el('span', {class: `term ${key}`}, sub(...NAMES[key])))));
  }
  // `figure` moved the one x_t into the second row; the first has a copy of it.
  const first = el('img', {class: 'pixels', alt: '', width: 128, height: 128, draggable: 'false'});
  copies.push(['x_t', first]);
  forward.querySelector('figure').prepend(first);

  const inspector = el('table', {class: 'pixel', hidden: true});
  const charts = {
    alpha_bar: chart({title: 'ᾱ: how much of the image is left', range: [0, 1], onmark: mark}),
    snr: chart({title: 'SNR', log: true, onmark: mark}),
    weights: chart({title: 'Weights in the posterior’s mean', onmark: mark}),
    variances: chart({title: 'Variances of a step', log: true, onmark: mark}),
  };
  const node = el('div', {class: 'view whiteboard'}, el('div', {class: 'stage'}, el('section', {class: 'film', 'aria-label': 'Whiteboard'},
    el('div', {class: 'time'}, t.node),
    el('h2', {}, 'Noise is added in one leap'), forward,
    el('h2', {}, 'The network answers'), answer, told,
    el('h2', {}, 'One step back: the posterior, with the guess in place of the image'), back,
    el('p', {class: 'facts'}, 'SNR ', numbers.snr, ' · ᾱₜ ', numbers.alpha_bar, ' · βₜ ', numbers.beta, ' · β̃ₜ ', numbers.beta_tilde, ' · mean ‖x̂₀ − x₀‖² ', numbers.error),
    inspector, details, el('div', {class: 'charts'}, Object.values(charts).map((c) => c.node)))),
  el('aside', {class: 'rail', 'aria-label': 'Controls'}, modelCards(), example, note, seed.node,
    el('div', {class: 'equations'}, el('h2', {}, 'Equations and their code'),
      boot.equations.map((e) => term('', e.key, e.title))),
    el('div', {class: 'field'}, el('span', {}, 'Pixel'), el('div', {class: 'two'}, pixelFields)),
    el('p', {class: 'hint'}, 'Point at a picture, or type, for the numbers of a pixel; each term opens its equation.')));

  function startT() { return state.t || Math.round(model().T / 4); }
  function mark(v) { update({t: Math.min(Math.max(1, v), model().T)}); }

  function open(key, from) {
    const again = details.dataset.key === key && !details.hidden;
    details.hidden = again;
    details.dataset.key = key;
    for (const b of node.querySelectorAll('[data-equation]')) b.setAttribute('aria-expanded', !again && b.dataset.equation === key);
    if (again) return;
    const e = boot.equations.find((one) => one.key === key);
    const math = el('div', {class: 'math', tabindex: 0, role: 'group', 'aria-label': e.title});
    math.innerHTML = e.mathml;
    details.replaceChildren(el('h3', {}, e.title), math, el('p', {class: 'paper'}, e.paper),
      el('p', {}, 'The lines that compute it, ', el('code', {}, e.function), ':'), el('pre', {tabindex: 0}, e.code),
      button('Close', () => { open(key); from?.focus(); }));
    details.scrollIntoView({block: 'nearest'});
  }

  async function drawCurves() {
    const m = model();
    if (curvesOf === m.name) return;
    curvesOf = m.name;
    const c = await ask('curves', {model: m.name});
    if (curvesOf !== m.name) return;
    const line = (name, key) => ({name, points: c.t.map((x, i) => [x, c[key][i]])});
    charts.alpha_bar.draw([line('ᾱ', 'alpha_bar')]);
    charts.snr.draw([line('SNR', 'snr')]);
    charts.weights.draw([line('of x̂₀', 'weight_x0'), line('of xₜ', 'weight_x_t')]);
    charts.variances.draw([line('β', 'beta'), line('β̃', 'beta_tilde')]);
    for (const one of Object.values(charts)) one.mark(startT());
  }

  let wanted = false;
  async function draw() {
    wanted = true;
    if (latest.busy) return;
    while (wanted) {
      wanted = false;
      await latest.run(async (signal) => {
        const at = Math.min(startT(), model().T);
        for (const one of Object.values(charts)) one.mark(at);
        const photo = picture() === passed ? null : picture();
        const wished = pixel;
        show(await ask('whiteboard', {model: state.model, picture: photo ?? {example: state.example}, t: at, seed: state.seed, pixel: wished}, {signal}), wished);
      });
    }
  }

  function show(found, at) {
    shown = found;
    for (const [key, src] of Object.entries(found.pictures)) {
      images[key].src = src;
      images[key].alt = `${NAMES[key].join('')} at t = ${found.t}`;
    }
    for (const [key, image] of copies) {
      image.src = found.pictures[key];
      image.alt = `${NAMES[key].join('')} at t = ${found.t}`;
    }
    for (const [key, span] of Object.entries(numbers)) span.textContent = number(found.numbers[key]);
    note.textContent = found.note;
    const [symbol, words] = TARGETS[found.target];
    told.textContent = `This network predicts ${symbol}, ${words}; x̂₀ and ε̂ follow from it.`;
    inspect(found.pixel, at);
  }

  // ---- the numbers of a pixel ---------------------------------------------------------------
  node.addEventListener('pointermove', (event) => {
    const image = event.target.closest?.('.whiteboard .pane img');
    if (image) choosePixel(image, event);
  });
  node.addEventListener('click', (event) => {
    const image = event.target.closest?.('.whiteboard .pane img');
    if (image) choosePixel(image, event);
  });
  function choosePixel(image, event) {
    const box = image.getBoundingClientRect();
    const [, h, w] = model().shape;
    const at = [Math.floor((event.clientX - box.left) / box.width * w), Math.floor((event.clientY - box.top) / box.height * h)];
    if (at[0] < 0 || at[1] < 0 || at[0] >= w || at[1] >= h || pixel?.join() === at.join()) return;
    pixel = at;
    for (const [i, box] of pixelFields.entries()) box.value = at[i];
    draw();
  }

  function inspect(values, at) {
    inspector.hidden = !values;
    if (!values) return;
    const {sqrt_alpha_bar: a, sqrt_rest: b} = shown.numbers;
    const colours = values.x0.length === 3 ? ['red', 'green', 'blue'] : values.x0.map((_, i) => values.x0.length > 1 ? `channel ${i + 1}` : 'gray');
    inspector.replaceChildren(el('caption', {}, `Pixel (${at.join(', ')})`),
      el('thead', {}, el('tr', {}, el('th', {scope: 'col'}, 'channel'), Object.keys(NAMES).map((key) => el('th', {scope: 'col'}, sub(...NAMES[key]))), el('th', {scope: 'col'}, 'the sum'))),
      el('tbody', {}, colours.map((colour, c) => el('tr', {}, el('th', {scope: 'row'}, colour),
        Object.keys(NAMES).map((key) => el('td', {}, values[key][c].toFixed(3))),
        el('td', {}, `${a.toFixed(3)} · ${values.x0[c].toFixed(3)} + ${b.toFixed(3)} · ${values.eps[c].toFixed(3)} = ${(a * values.x0[c] + b * values.eps[c]).toFixed(3)}`)))));
  }

  subscribe((names) => {
    if (names.has('model')) pixel = null;
    if (state.view !== 'board') return;
    t.set(Math.min(startT(), model().T), model().T);
    seed.set(state.seed);
    if (['model', 'view'].some((name) => names.has(name))) drawCurves().catch(() => {});
    if (['model', 'view', 't', 'seed', 'example'].some((name) => names.has(name))) draw();
  });
  return {node, open() { drawCurves().catch(() => {}); draw(); }};
}
