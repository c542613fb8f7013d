// What is on the page: one state, which a link restores. Views read it, change it and are told.

import {boot} from './queue.js';

export const MAX_DRAWING = 100_000;  // characters of a picture in a link

const defaults = {
  view: 'create', model: boot.models[0].name, label: '', n: 0, seed: 0, settings: {}, fork: null,
  strength: 0.6, t: 0, example: 0, seeds: [1, 2, 3, 4], at: [0.5, 0.5], mode: 'vary', plane: {},
  drawing: '',
};

export const state = {...structuredClone(defaults), ...restored(location.hash)};
const listeners = [];

/** Be told of every change: `fn(names of what has changed)`. */
export const subscribe = (fn) => { listeners.push(fn); };

/** Change the state, and tell all who listen. */
export function update(changes) {
  const names = Object.keys(changes).filter((k) =>
    JSON.stringify(state[k]) !== JSON.stringify(changes[k]));
  if (!names.length) return;
  if (names.includes('model')) {
    const known = named(changes.model).classes;
    const label = changes.label ?? state.label;
    Object.assign(changes, {settings: changes.settings ?? {}, fork: null,
      label: label === null && known.length || known.includes(label) ? label : ''});
  }
  Object.assign(state, changes);
  address();
  for (const fn of listeners) fn(new Set([...names, ...Object.keys(changes)]));
}

const told = []; // when the address was changed of late
let telling = 0;

/** Put the state into the address: at once, but where it changes all the time, as by a slider that
 *  is dragged, a little later. Safari allows 100 changes in 30 seconds. */
function address() {
  clearTimeout(telling);
  const now = performance.now();
  while (told[0] < now - 10_000) told.shift();
  if (told.length >= 20) {
    telling = setTimeout(address, 500);
    return;
  }
  told.push(now);
  history.replaceState(null, '', link());
}

addEventListener('pagehide', () => history.replaceState(null, '', link()));

export function named(name) {
  return boot.models.find((m) => m.name === name) ?? boot.models[0];
}
export const model = () => named(state.model);

/** Return what the network is sampled with: its own settings, with the visitor's. */
export const settings = () => ({...model().sample, ...state.settings});

/** Return the images that are asked for: as many as the network draws at once with ease. */
export const count = () => state.n || (model().shape[1] > 48 ? 1 : model().shape[0] > 1 ? 4 : 9);

/** Return a link that restores the state, with these changes: what differs from the defaults,
 *  readable. */
export function link(changes = {}) {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries({...state, drawing: '', ...changes})) {
    if (JSON.stringify(value) === JSON.stringify(defaults[key])) continue;
    parts.set(key, typeof value === 'string' ? value : JSON.stringify(value));
  }
  return `#${parts}`;
}

/** Return the state that a link holds; what it should not hold is left out. */
function restored(hash) {
  const found = {};
  for (const [key, text] of new URLSearchParams(hash.slice(1))) {
    if (!(key in defaults)) continue;
    let value = text;
    if (typeof defaults[key] !== 'string' || text === 'null') {
      try { value = JSON.parse(text); } catch { continue; }
    }
    const like = defaults[key];
    const same = typeof value === typeof like && Array.isArray(value) === Array.isArray(like)
      && (value === null) === (like === null);
    if (same || key === 'fork' && typeof value === 'object' || key === 'label' && value === null) {
      found[key] = value;
    }
  }
  if (found.model && !boot.models.some((m) => m.name === found.model)) delete found.model;
  const classes = named(found.model ?? defaults.model).classes;
  if (found.label && !classes.includes(found.label)) delete found.label;
  for (const [key, fits] of Object.entries({
    seeds: (v) => v.length === 4 && v.every(Number.isSafeInteger), at: (v) => v.length === 2
      && v.every((x) => x >= 0 && x <= 1), n: (v) => Number.isInteger(v) && v >= 0 && v <= 64,
    seed: (v) => Number.isSafeInteger(v) && v >= 0, strength: (v) => v > 0 && v <= 1,
    t: (v) => Number.isInteger(v) && v >= 0, example: (v) => Number.isInteger(v) && v >= 0,
    view: (v) => ['create', 'draw', 'between', 'board', 'plane', 'train'].includes(v),
    drawing: (v) => v.startsWith('data:image/png;base64,') && v.length < MAX_DRAWING,
    mode: (v) => ['vary', 'paint'].includes(v),
  })) if (key in found && !fits(found[key])) delete found[key];
  return found;
}
