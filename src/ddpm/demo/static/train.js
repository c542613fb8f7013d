// Training: begin a run, and watch it: its loss, the loss on held-out images, and its samples.

import {chart} from './charts.js';
import {button, chips, counted, el, notice, select, slider} from './dom.js';
import {ask, boot} from './queue.js';
import {state, subscribe} from './state.js';

const EVERY = 4000; // milliseconds between looks at the folder
const WORDS = {training: 'training', stopped: 'stopped', finished: 'finished'};

export function train() {
  let name = '', version = '', shown = null, timer = 0, busy = false, photos = [], labels = [], reading = 0;
  let grids = [], kind = 'ema';

  const list = chips({label: 'Runs', kind: 'chips runs', choices: [], value: '', onchange: (v) => { name = v; version = ''; look(); }});
  const facts = el('p', {class: 'says', role: 'status'}, 'Looking for runs …');
  const loss = chart({title: 'Loss', x: 'images', log: true});
  const bands = chart({title: 'Loss on held-out images, by noise', x: 'images', log: true});
  const grid = el('img', {class: 'pixels', alt: 'no samples yet', hidden: true});
  const gridCaption = el('figcaption', {}, 'samples');
  const scrub = el('input', {type: 'range', min: 0, max: 0, value: 0, step: 1, 'aria-label': 'Samples over the run', oninput: () => showGrid(Number(scrub.value))});
  const weights = chips({label: 'Weights', choices: [['ema', 'averaged'], ['raw', 'raw']], value: 'ema', onchange: (v) => { kind = v; showGrid(Number(scrub.value)); }});
  const samples = el('figure', {class: 'pane samples', hidden: true}, gridCaption, grid, el('div', {class: 'transport plain'}, scrub), weights.node);
  const stop = button('Stop the run', async () => {
    try {
      await ask('stop_run', {name});
      notice('It saves, and ends.');
    } catch (error) { notice(error.message, 'error'); }
  }, {hidden: true});

  // ---- to begin one -------------------------------------------------------------------------
  const set = select({label: 'Images', choices: [['mnist5k', 'mnist5k']], value: 'mnist5k', onchange: () => { files.value = ''; readPhotos(); }});
  const size = select({label: 'Photos at', choices: [['32', '32 x 32'], ['64', '64 x 64'], ['28', '28 x 28']], value: '32', onchange: () => readPhotos()});
  const minutes = slider({label: 'Minutes', min: 0.5, max: 10, step: 0.5, value: 2, onchange: () => {}});
  const chosen = el('p', {class: 'note', role: 'status'});
  const files = el('input', {type: 'file', accept: 'image/*', multiple: true, id: 'photos', onchange: () => readPhotos()});
  const begin = button('Begin a run', start, {class: 'primary'});
  const form = el('div', {class: 'begin'}, el('h2', {}, 'Begin a run'), set.node,
    el('label', {class: 'file', for: 'photos'}, 'or photos of yours', files), size.node, chosen, minutes.node, begin);
  const closed = el('p', {class: 'note', hidden: true}, 'Runs are begun with ', el('code', {}, 'ddpm train'),
    ': this page may begin them where it is open to its own machine alone, or asks for a password.');

  /** Cut each photo to a square in the browser: what is sent is small. A later reading replaces
   *  one that is not done, and no run begins before. */
  async function readPhotos() {
    const side = Number(size.value), canvas = el('canvas', {width: side, height: side});
    const pen = canvas.getContext('2d'), mine = reading += 1;
    const read = [], of = [];
    let bad = 0;
    [photos, labels, begin.disabled] = [[], [], true];
    const most = limits?.photos[1] ?? 400;
    for (const file of [...files.files].slice(0, most)) {
      try {
        const bitmap = await createImageBitmap(file);
        if (mine !== reading) return;
        const s = Math.min(bitmap.width, bitmap.height);
        pen.imageSmoothingQuality = 'high';
        pen.fillStyle = 'white';
        pen.fillRect(0, 0, side, side);
        pen.drawImage(bitmap, (bitmap.width - s) / 2, (bitmap.height - s) / 2, s, s, 0, 0, side, side);
        bitmap.close();
        read.push(canvas.toDataURL('image/png'));
        of.push(file.webkitRelativePath.split('/').at(-2) ?? '');
      } catch { bad += 1; }
    }
    if (mine !== reading) return;
    [photos, labels, begin.disabled] = [read, of, false];
    const few = files.files.length > most ? `, the first ${most}` : '';
    chosen.textContent = files.files.length ? `${counted(photos.length, 'photo')}${few}${bad ? `; ${bad} could not be read` : ''}` : '';
  }

  async function start() {
    begin.disabled = true;
    try {
      const answer = await ask('start_run', {minutes: minutes.value, data: set.value, photos,
        labels: new Set(labels).size > 1 ? labels : []});
      name = answer.name;
      version = '';
      notice(`${name} has begun: its first samples are there in a while.`);
      await look();
    } catch (error) {
      notice(error.message, 'error');
    } finally {
      begin.disabled = false;
    }
  }

  // ---- to watch -----------------------------------------------------------------------------
  let limits = null, listed = '', offered = '';
  async function look() {
    if (busy) return;
    busy = true;
    try {
      limits = await ask('list_runs');
      form.hidden = !limits.allowed;
      closed.hidden = limits.allowed;
      const sets = JSON.stringify(limits.sets);
      if (sets !== offered) {
        offered = sets;
        set.fill(Object.entries(limits.sets).map(([n, what]) => [n, `${n}: ${what}`]), set.value || 'mnist5k');
      }
      if (!limits.runs.some((r) => r.name === name)) name = limits.runs[0]?.name ?? '';
      const now = JSON.stringify(limits.runs);
      if (now === listed) list.choose(name);
      else {
        listed = now;
        list.fill(limits.runs.map((r) => [r.name, [el('b', {}, r.name), el('small', {class: r.state}, WORDS[r.state])], r.name]), name);
      }
      list.node.hidden = !limits.runs.length;
      if (!name) {
        facts.textContent = `There is no run in ${limits.folder}/ yet: begin one.`;
        stop.hidden = samples.hidden = true;
        grids = [];
        version = '';
        loss.draw([]);
        bands.draw([]);
        return;
      }
      const found = await ask('watch_run', {name, seen: version});
      stop.hidden = !found.ours;
      if (found.name) show(found);
      else if (found.starting) facts.textContent = `${name} has begun: its images are being read.`;
      version = found.version;
    } catch (error) {
      facts.textContent = error.message;
      version = '';  // what it says is told again
    } finally {
      busy = false;
    }
  }

  function show(found) {
    const other = shown?.name !== found.name;
    shown = found;
    const {now} = found;
    facts.textContent = now.step === undefined ? `${found.name}: ${WORDS[found.state]}; its first steps are on their way.`
      : `${found.name}: ${WORDS[found.state]} · step ${now.step.toLocaleString('en')} · ${counted(now.images, 'image')} · `
        + `${(now.seconds / 60).toFixed(1)} minutes · loss ${now.loss.toFixed(4)}${found.state === 'training' ? ` · ${found.rate} images/s` : ''}`;
    loss.draw([{name: 'loss', points: found.loss}]);
    bands.draw(Object.entries(found.bands).map(([band, points]) => ({name: band, points})));
    const last = Number(scrub.value) === grids.length - 1 || other;
    grids = found.grids ?? grids;
    scrub.max = Math.max(0, grids.length - 1);
    samples.hidden = !grids.length;
    if (grids.length) showGrid(last ? grids.length - 1 : Number(scrub.value));
  }

  function showGrid(i) {
    const one = grids[Math.min(i, grids.length - 1)];
    if (!one) return;
    scrub.value = i;
    grid.hidden = false;
    grid.src = one[kind] || one.ema;
    const step = Number(one.name).toLocaleString('en');
    grid.alt = `samples at step ${step}`;
    gridCaption.textContent = `Samples at step ${step}, of ${kind === 'ema' ? `weights averaged over ${counted(shown.span, 'step')}` : 'the raw weights'}`;
  }

  subscribe((names) => {
    if (!names.has('view')) return;
    clearInterval(timer);
    if (state.view === 'train') open();
  });
  function open() {
    clearInterval(timer);
    look();
    timer = setInterval(() => { if (!document.hidden) look(); }, EVERY);
  }
  form.hidden = !boot.training;
  return {
    node: el('div', {class: 'view'}, el('div', {class: 'stage'}, el('section', {class: 'film', 'aria-label': 'Run'}, facts,
      el('div', {class: 'charts two'}, loss.node, bands.node), samples, el('div', {class: 'actions'}, stop))),
    el('aside', {class: 'rail', 'aria-label': 'Controls'}, list.node, form, closed)),
    open,
  };
}
