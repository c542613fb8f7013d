// Controls that several views share: the network and the class.

import {chips, el} from './dom.js';
import {ask, boot} from './queue.js';
import {model, state, subscribe, update} from './state.js';

/** Return cards to choose a network by, each with a picture of what it makes. */
export function modelCards() {
  const control = chips({label: 'Network', kind: 'cards', value: state.model,
    choices: boot.models.map((m) => [m.name, card(m), m.about]),
    onchange: (name) => update({model: name})});
  subscribe((names) => { if (names.has('model')) control.choose(state.model); });
  return control.node;
}

const pictures = new Map();
let before = Promise.resolve();  // they are asked for one after the other, behind what is on the stage

/** Return the promise of a picture of what a network makes. */
function pictureOf(m) {
  if (m.bundled) return Promise.resolve(`page/cards/${m.name}.webp`);
  if (!pictures.has(m.name)) {
    const picture = before.then(() => ask('picture', {model: m.name})).then(({src}) => src);
    before = picture.catch(() => pictures.delete(m.name));
    pictures.set(m.name, picture);
  }
  return pictures.get(m.name);
}

function card(m) {
  const image = el('img', {alt: '', width: 64, height: 64});
  pictureOf(m).then((src) => { image.src = src; }).catch(() => {});
  return [image, el('b', {}, m.title)];
}

/** Return chips to choose a class by: one, any of them in turn, or none; nothing where the network
 *  knows no classes. */
export function classChips({any = 'all'} = {}) {
  const holder = el('div', {class: 'classes'});
  let control = null;
  const choices = () => [['', any, 'All classes in turn'],
    ...model().classes.slice(0, 100).map((name) => [name, name, name]), [null, 'none', 'Without a class']];
  const build = () => {
    const known = model().classes.length > 0;
    holder.hidden = !known;
    control = known ? chips({label: 'Class', choices: choices(), value: state.label,
      onchange: (label) => update({label})}) : null;
    holder.replaceChildren(...(control ? [control.node] : []));
  };
  build();
  subscribe((names) => {
    if (names.has('model')) build();
    else if (names.has('label')) control?.choose(state.label);
  });
  return holder;
}

