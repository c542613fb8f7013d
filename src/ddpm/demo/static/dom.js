// Elements, controls and notices: what all views are made of.

/** Return an element with attributes (`on…` are listeners) and children, text or elements. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

/** Return a variable with its index, as x_t: `sub('x', 't')`. */
export const sub = (name, index) => el('i', {}, name, el('sub', {}, index));

/** Return a count with its noun: 1 step, 2 steps. */
export const counted = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;

export const reducedMotion = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

let counter = 0;
const fresh = (stem) => `${stem}-${counter += 1}`;

/** Say something to the visitor for some seconds, read out by screen readers. */
export function notice(text, kind = 'note') {
  const box = document.querySelector('#notices');
  const node = el('p', {class: kind}, text, el('button', {
    type: 'button', 'aria-label': 'Dismiss', onclick: () => node.remove()}, '×'));
  for (const old of [...box.children].slice(0, -2)) old.remove();
  box.append(node);
  setTimeout(() => node.remove(), kind === 'error' ? 12000 : 4000);
}

/** Return a slider with its number beside it; `set(value)` moves it, `value` reads it. A number
 *  out of range is brought within it. */
export function slider({label, min, max, step = 1, value, onchange, log = false}) {
  const id = fresh('slider');
  const bound = (v) => Math.min(Math.max(v, control.min), control.max);
  const place = (v) => log ? Math.log(v) : v;
  const range = el('input', {type: 'range', id, min: place(min), max: place(max),
    step: log ? 'any' : step, oninput: () => take(log ? Math.round(Math.exp(range.value))
      : Number(range.value), range)});
  const number = el('input', {type: 'number', min, max, step, 'aria-label': `${label}, as a number`,
    oninput: () => { if (number.value !== '') take(bound(Number(number.value)), number); },
    onblur: () => { number.value = control.value; }});
  const node = el('div', {class: 'slider'}, el('label', {for: id}, label), number, range);
  const control = {
    node, min, max, value,
    set(v, most = control.max, least = control.min) {
      [control.min, control.max] = [least, most];
      [range.min, range.max] = [place(least), place(most)];
      [number.min, number.max] = [least, most];
      control.value = bound(v);
      range.value = place(control.value);
      number.value = control.value;
    },
  };
  function take(v, from) {
    control.value = v;
    if (from !== range) range.value = place(v);
    if (from !== number) number.value = v;
    onchange(v);
  }
  control.set(value);
  return control;
}

/** Return chips of which one is chosen, as radio buttons: choices are [value, text, title]. */
export function chips({label, choices, value, onchange, kind = 'chips'}) {
  const name = fresh('chips');
  const set = el('fieldset', {class: kind}, el('legend', {}, label));
  const control = {
    node: set, value,
    choose(v) {
      control.value = v;
      for (const input of set.querySelectorAll('input')) input.checked = input.choice === v;
    },
    fill(list, v) {
      for (const old of set.querySelectorAll('label')) old.remove();
      for (const [choice, content, title] of list) {
        const input = el('input', {type: 'radio', name, title,
          onchange: () => { control.value = choice; onchange(choice); }});
        input.choice = choice;
        set.append(el('label', {title}, input, el('span', {}, content)));
      }
      control.choose(v);
    },
  };
  control.fill(choices, value);
  return control;
}

/** Return a list to choose from. */
export function select({label, choices, value, onchange}) {
  const id = fresh('select');
  const box = el('select', {id, onchange: () => onchange(box.value)});
  const control = {
    node: el('div', {class: 'field'}, el('label', {for: id}, label), box),
    get value() { return box.value; },
    choose(v) { box.value = v; },
    fill(list, v) {
      box.replaceChildren(...list.map(([value, text]) => el('option', {value}, text)));
      box.value = v;
    },
  };
  control.fill(choices, value);
  return control;
}

/** Return a seed with a dice beside it. */
export function seedField({label = 'Seed', value, onchange}) {
  const id = fresh('seed');
  const box = el('input', {id, type: 'number', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1,
    onchange: () => take(Math.min(Math.max(Math.trunc(Number(box.value)) || 0, 0),
      Number.MAX_SAFE_INTEGER))});
  const roll = () => take(Math.floor(Math.random() * 1e6));
  const control = {
    node: el('div', {class: 'field seed'}, el('label', {for: id}, label), box,
      el('button', {type: 'button', class: 'dice', 'aria-label': `Another ${label.toLowerCase()}`,
        title: 'Another seed', onclick: roll}, '⚄')),
    get value() { return Number(box.value); },
    set(v) { box.value = v; },
    roll,
  };
  function take(v) { box.value = v; onchange(v); }
  control.set(value);
  return control;
}

export const button = (text, onclick, attributes = {}) =>
  el('button', {type: 'button', onclick, ...attributes}, text);

/** Return a promise of an image that can be drawn. */
export async function loadImage(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  return image;
}

/** Save a data URI as a file. */
export function saveAs(src, name) {
  el('a', {href: src, download: name}).click();
}

/** Show a text that is copied, where it can be, and can be copied by hand where not; and the files
 *  that it needs, by their names, to be saved. */
export async function copy(title, text, files = {}) {
  const box = document.querySelector('#copied');
  const how = el('p', {role: 'status'});
  box.replaceChildren(el('h2', {id: 'copied-title'}, title), el('pre', {tabindex: 0}, text),
    how, ...Object.entries(files).map(([name, href]) => el('p', {}, el('a', {href, download: name}, `Save ${name}`), ', which it reads.')),
    button('Close', () => box.close(), {autofocus: true}));
  box.showModal(); // before the clipboard is asked for: it may wait for somebody's leave
  how.textContent = await navigator.clipboard?.writeText(text).then(() => 'Copied.', () => null)
    ?? 'Select it and copy it.';
}

/** Of many calls in a row only the last matters: `run` aborts what the one before has begun. */
export class Latest {
  run(work) {
    this.controller?.abort();
    const controller = this.controller = new AbortController();
    return work(controller.signal).catch((error) => {
      if (!controller.signal.aborted) notice(error.message, 'error');
    }).finally(() => { if (this.controller === controller) this.controller = null; });
  }

  stop() {
    this.controller?.abort();
    this.controller = null;
  }

  get busy() { return Boolean(this.controller); }
}

/** Return a function that calls `fn` once calls of it have ceased for some milliseconds. */
export function debounced(fn, milliseconds = 60) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(fn, milliseconds, ...values);
  };
}
