// The page: tabs, each with a view that is built when it is first opened.

import {between} from './between.js';
import {board} from './board.js';
import {command, python} from './commands.js';
import {create} from './create.js';
import {copy, el, notice} from './dom.js';
import {draw} from './draw.js';
import {mount} from './plane.js';
import {call} from './queue.js';
import {link, MAX_DRAWING, state, subscribe, update} from './state.js';
import {train} from './train.js';

const VIEWS = {
  create: ['Create', create],
  draw: ['Draw', draw],
  between: ['Between', between],
  board: ['Whiteboard', () => board(() => views.draw?.picture() ?? null)],
  plane: ['In 2-D', plane],
  train: ['Training', train],
};
const views = {};
const panels = {};
const tabs = {};

function plane() {
  const root = el('div', {class: 'plane'});
  return {node: root, open() { mount(root, call, {chosen: state.plane, onchange: (chosen) => update({plane: chosen})}); }};
}

function show(name) {
  for (const key of Object.keys(VIEWS)) {
    tabs[key].setAttribute('aria-selected', key === name);
    tabs[key].tabIndex = key === name ? 0 : -1;
    panels[key].hidden = key !== name;
  }
  document.title = `ddpm: ${VIEWS[name][0].toLowerCase()}`;
  if (views[name]) return;
  const view = views[name] = VIEWS[name][1]();
  panels[name].append(view.node);
  view.open();
  fitShare();
}

for (const [name, [title]] of Object.entries(VIEWS)) {
  panels[name] = el('section', {id: `view-${name}`, role: 'tabpanel', 'aria-labelledby': `tab-${name}`, hidden: true});
  tabs[name] = el('button', {type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': `view-${name}`,
    onclick: () => update({view: name})}, title);
}
document.querySelector('[role=tablist]').append(...Object.values(tabs));
document.querySelector('[role=tablist]').addEventListener('keydown', (event) => {
  const names = Object.keys(VIEWS);
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const at = {Home: 0, End: names.length - 1}[event.key] ?? (by && (names.indexOf(state.view) + by + names.length) % names.length);
  if (at === undefined) return;
  event.preventDefault();
  update({view: names[at]});
  tabs[names[at]].focus();
});
document.querySelector('#views').append(...Object.values(panels));

subscribe((names) => { if (names.has('view')) show(state.view); fitShare(); });

const shareCommand = document.querySelector('#copy-command');
const sharePython = document.querySelector('#copy-python');
/** What is on the stage, where a command can make it. */
const asked = () => views[state.view]?.asked?.();
function fitShare() {
  shareCommand.hidden = sharePython.hidden = !asked();
}
document.querySelector('#copy-link').addEventListener('click', () => {
  let drawing = state.view === 'draw' ? views.draw.drawing() : '';
  if (drawing.length >= MAX_DRAWING) {
    notice('The picture is too large for a link, which is of all the rest.');
    drawing = '';
  }
  copy('A link to what is on the page', `${location.origin}${location.pathname}${link({drawing})}`);
});
const share = (how, write) => {
  const wanted = asked();
  copy(`${wanted.what ?? 'The same images'} ${how}`, write(wanted), wanted.files?.());
};
shareCommand.addEventListener('click', () => share('by the command line', command));
sharePython.addEventListener('click', () => share('in Python', python));
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();  // the address holds the state
  document.querySelector('#views').focus();
});
addEventListener('hashchange', () => location.reload());
addEventListener('error', (event) => notice(`Something went wrong in the page: ${event.message}`, 'error'));

show(state.view);
