// Diffusion in two dimensions: a tiny network is trained on the server while one looks, and every
// choice of how it is sampled is seen at once.
//
// mount(root, call) builds the whole tab in `root`. call("plane", request) returns an async
// iterator of the frames that demo/plane.py describes.

import { COLOURS, Stage, longest, mix, positions, wayOf } from './plane-stage.js';
import { sentence } from './plane-words.js';

const STEPS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200];
const MOST = 4000, ENOUGH = 12; // points that one draws
const PLAY = 3400, REST = 1500; // milliseconds from noise to data, and before it begins again
const TWEEN = 260; // milliseconds from one training frame's dots to the next
const TRAIN_AFTER = 350, DRAWN_AFTER = 700, SAMPLE_AFTER = 60; // milliseconds after a change
const SECONDS = 4;
const TRAINED_ON = ['points', 'schedule', 'target'];

const DATA = {
  moons: ['Moons', '<path d="M4 15a7 7 0 0 1 14 0"/><path d="M11 11a7 7 0 0 0 14 0" transform="translate(-3 2)"/>'],
  spirals: ['Spirals', '<path d="M13 13c3-1 3-6-1-7-6-1-9 6-6 11 4 6 14 4 16-3"/>'],
  rings: ['Rings', '<circle cx="13" cy="13" r="4"/><circle cx="13" cy="13" r="9"/>'],
  grid: ['Grid', [6, 13, 20].map((x) => [6, 13, 20].map((y) => `<circle cx="${x}" cy="${y}" r="1.2"/>`).join('')).join('')],
  draw: ['Draw', '<path d="M5 21l1.5-5L17 5.5l3.5 3.5L10 19.5z"/>'],
};
const SCHEDULES = { cosine: 'cosine', linear: 'linear', sigmoid: 'sigmoid', edm: 'EDM', flow: 'flow' };
const TARGETS = { eps: 'ε, the noise', x0: 'x₀, the data', v: 'v', u: 'u, velocity', F: 'F, EDM’s' };
const SAMPLERS = { ddpm: 'DDPM', ddim: 'DDIM', euler: 'Euler', heun: 'Heun', 'dpm++': 'DPM++', 'dpm++sde': 'DPM++ SDE' };
const SHOWN = { field: 'Arrows', paths: 'Paths', data: 'Data', seen: 'What it sees' };
const GOES_WITH = { edm: 'F', flow: 'u' }; // the target that a schedule is made for
const TELLS_NOTHING = { flow: ['eps', 'F'] }; // targets from which nothing follows at t = T

// `chosen` is what of a request is chosen at first, and `onchange` is told of every other choice.
export function mount(root, call, { chosen = {}, onchange = () => {} } = {}) {
  const tab = new Plane(root, call, known(chosen), onchange);
  return { destroy: () => tab.destroy() };
}

/** What of a request can be asked for, of one that anybody may have written. */
function known(request) {
  const fits = {
    points: (v) => v in DATA && v !== 'draw' || unpacked(v).length >= ENOUGH, schedule: (v) => v in SCHEDULES, target: (v) => v in TARGETS,
    sampler: (v) => v in SAMPLERS, steps: (v) => STEPS.includes(v), guidance: (v) => v >= 0 && v <= 6,
    label: (v) => v === null || Number.isInteger(v) && v >= 0 && v < COLOURS.length, seed: (v) => Number.isSafeInteger(v) && v >= 0,
  };
  const found = Object.entries(request).filter(([name, value]) => fits[name]?.(value));
  const all = Object.fromEntries(found);
  if (all.points && !(all.points in DATA)) all.points = unpacked(all.points);
  if ((TELLS_NOTHING[all.schedule] ?? []).includes(all.target ?? 'eps')) all.target = GOES_WITH[all.schedule];
  return all;
}

class Plane {
  constructor(root, call, chosen, onchange) {
    this.call = call;
    this.onchange = onchange;
    this.request = {
      points: 'moons', schedule: 'cosine', target: 'eps', sampler: 'ddim', steps: 30, guidance: 1,
      label: null, seconds: SECONDS, seed: 1, ...chosen,
    };
    this.phase = 'waiting';
    this.show = { field: true, paths: true, data: true, seen: false };
    this.drawing = Array.isArray(this.request.points);
    this.drawn = this.drawing ? this.request.points : heart();
    this.strokes = [this.drawn.length];
    Object.assign(this, {
      T: 1000, t: 1000, share: 0, losses: [], topic: null, done: null, brush: 0,
      cursor: [0, 0], classes: 2, points: [], labels: [], dots: gaussian(300), before: null, run: 0,
      playing: false, again: false, frame: 0, visible: false, begun: false, quiet: false,
    });
    this.noise = this.dots;
    this.labels = this.dots.map(() => 0);
    this.still = window.matchMedia('(prefers-reduced-motion: reduce)');
    this.build(root);
    this.stage = new Stage(this.canvas);
    this.listen();
    this.update();
  }

  // ---- the page --------------------------------------------------------------------------------

  build(root) {
    this.root = root;
    root.classList.add('plane');
    // A form, so that names of its radio buttons are its own.
    root.innerHTML = `<form class="plane-body">
      <div class="plane-view">
        <div class="plane-stage">
          <canvas></canvas>
          <div class="plane-bar"><i></i></div>
          <p class="plane-status" role="status"></p>
        </div>
        <div class="plane-transport">
          <button type="button" class="plane-play" aria-label="Play"></button>
          <div class="plane-time">
            <svg viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">
              <path class="plane-noise" d="M0 0H100V20H0z"/><path class="plane-signal"/>
            </svg>
            <input type="range" min="0" max="1000" step="1" value="0" aria-label="Time, from noise to data">
            <div class="plane-ends" aria-hidden="true"><span>noise</span><output></output><span>data</span></div>
          </div>
        </div>
        <p class="plane-say"></p>
        <dl class="plane-numbers">
          <div><dt>Loss</dt><dd data-number="loss"></dd></div>
          <svg viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"><path/></svg>
          <div><dt>Network calls</dt><dd data-number="nfe"></dd></div>
          <div><dt>Distance to the data</dt><dd data-number="distance"></dd></div>
        </dl>
        <p class="plane-problem" role="alert" hidden><span></span> <button type="button" class="plane-small">Try again</button></p>
      </div>
      <div class="plane-controls">
        ${chips('points', 'Data', Object.fromEntries(Object.entries(DATA).map(([k, [name, icon]]) => [k,
          `<svg viewBox="0 0 26 26" aria-hidden="true">${icon}</svg>${name}`])), 'plane-icons')}
        <div class="plane-pen" hidden>
          <div class="plane-chips" role="group" aria-label="Class of the points that you draw">
            ${COLOURS.map((colour, k) => `<button type="button" class="plane-colour" data-brush="${k}"
              style="--colour: ${colour}" aria-label="Class ${k + 1}"></button>`).join('')}
          </div>
          <button type="button" class="plane-small" data-pen="undo">Undo</button>
          <button type="button" class="plane-small" data-pen="clear">Clear</button>
          <small role="status"></small>
        </div>
        <section>
          <h2>Sampling <small>acts at once</small>
            <button type="button" class="plane-small" data-act="seed">Other noise</button></h2>
          ${slider('steps', 'Steps', 0, STEPS.length - 1, 1)}
          ${slider('guidance', 'Guidance', 0, 6, 0.25)}
          <fieldset class="plane-group" data-classes><legend>Class</legend><div class="plane-chips"></div></fieldset>
          ${chips('sampler', 'Sampler', SAMPLERS)}
        </section>
        <section>
          <h2>Training <small>begins anew, for ${SECONDS} seconds</small></h2>
          ${chips('schedule', 'Schedule', SCHEDULES)}
          ${chips('target', 'The network says', TARGETS)}
        </section>
        <section>
          <h2>Seen</h2>
          <div class="plane-chips" role="group" aria-label="What is shown">
            ${Object.entries(SHOWN).map(([k, name]) => `<label class="plane-chip"><input type="checkbox" name="${k}">
              <span>${name}</span></label>`).join('')}
          </div>
        </section>
      </div></form>`;
    const find = (selector) => root.querySelector(selector);
    this.canvas = find('canvas');
    this.playButton = find('.plane-play');
    this.slider = find('.plane-time input');
    this.output = find('.plane-time output');
    this.status = find('.plane-status');
    this.problem = find('.plane-problem');
    this.pen = find('.plane-pen');
    this.classChips = find('[data-classes]');
    this.find = find;
  }

  listen() {
    this.stop = new AbortController();
    const on = (target, kind, act) => target.addEventListener(kind, act, { signal: this.stop.signal });
    on(this.root, 'change', (event) => this.changed(event.target));
    on(this.root, 'input', (event) => {
      if (event.target.type === 'range' && event.target.name) this.changed(event.target);
    });
    on(this.root, 'submit', (event) => event.preventDefault());
    on(this.slider, 'input', () => {
      this.playing = false;
      this.topic = null;
      this.seek(this.T - Number(this.slider.value));
    });
    on(this.playButton, 'click', () => (this.playing ? this.pause() : this.play()));
    on(this.find('[data-act=seed]'), 'click', () => this.set('seed', this.request.seed + 1));
    on(this.problem.querySelector('button'), 'click', () => this.ask(0));
    on(this.pen, 'click', (event) => this.penButton(event.target.closest('button')));
    on(this.canvas, 'pointerdown', (event) => this.penDown(event));
    on(this.canvas, 'pointermove', (event) => this.penMove(event));
    for (const kind of ['pointerup', 'pointercancel']) on(this.canvas, kind, () => this.penUp());
    on(this.canvas, 'keydown', (event) => this.key(event));
    for (const kind of ['focus', 'blur', 'pointerenter', 'pointerleave']) on(this.canvas, kind, () => this.paint());
    on(this.still, 'change', () => this.still.matches && this.pause());
    this.sizes = new ResizeObserver(() => this.stage.resize() && this.paint());
    this.sizes.observe(this.canvas);
    this.sight = new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible && !this.begun) this.ask(0);
      if (this.visible) this.paint();
    });
    this.sight.observe(this.root);
  }

  destroy() {
    this.stop.abort();
    this.sizes.disconnect();
    this.sight.disconnect();
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.run++;
    this.frames?.return?.();
    this.root.replaceChildren();
  }

  // ---- choices ---------------------------------------------------------------------------------

  changed(input) {
    const { name } = input;
    if (input.type === 'checkbox') {
      this.show[name] = input.checked;
      this.topic = name === 'seen' && input.checked ? 'seen' : null;
      this.update();
    } else if (name === 'points') {
      this.choosePoints(input.value);
    } else if (name === 'steps') {
      this.set('steps', STEPS[Number(input.value)]);
    } else if (name === 'guidance') {
      this.set('guidance', Number(input.value));
    } else if (name === 'label') {
      this.set('label', input.value === 'all' ? null : Number(input.value));
    } else if (name) {
      this.set(name, input.value);
    }
  }

  set(name, value) {
    if (JSON.stringify(this.request[name]) === JSON.stringify(value)) return;
    this.request = { ...this.request, [name]: value };
    if (name === 'schedule') this.request.target = GOES_WITH[value] ?? this.request.target;
    this.topic = name;
    this.told();
    this.update();
    this.ask(TRAINED_ON.includes(name) ? TRAIN_AFTER : SAMPLE_AFTER);
  }

  /** Tell of what is chosen, of points that are drawn too. */
  told() {
    const { points, seconds, ...rest } = this.request;
    this.onchange({ points: this.drawing ? packed(points) : points, ...rest });
  }

  choosePoints(name) {
    this.drawing = name === 'draw';
    this.topic = null;
    this.request = { ...this.request, points: this.drawing ? this.drawn : name, label: null };
    this.told();
    this.quiet = this.drawing && this.drawn.length < ENOUGH;
    if (this.drawing) this.points = this.drawn;
    this.update();
    if (!this.quiet) this.ask(TRAIN_AFTER);
  }

  // ---- drawing ---------------------------------------------------------------------------------

  penButton(button) {
    if (!button) return;
    if (button.dataset.brush) this.brush = Number(button.dataset.brush);
    if (button.dataset.pen === 'clear') this.strokes = [];
    if (button.dataset.pen === 'undo') this.strokes.pop();
    if (button.dataset.pen) {
      this.redraw(this.drawn.slice(0, this.strokes.at(-1) ?? 0));
      this.told();
    }
    this.update();
  }

  penDown(event) {
    if (!this.drawing) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.keyed = false;
    this.stroke = this.stage.at(event);
    this.drop(this.stroke, 3);
  }

  penMove(event) {
    if (!this.drawing) return;
    const to = this.cursor = clamp(this.stage.at(event));
    if (!this.stroke) return this.paint();
    const way = Math.hypot(to[0] - this.stroke[0], to[1] - this.stroke[1]);
    const n = Math.min(40, Math.floor(way / 0.018));
    for (let i = 1; i <= n; i++) this.drop(mix(this.stroke, to, i / n), 2, false);
    if (n) this.stroke = to;
    this.paint();
  }

  penUp() {
    if (!this.stroke) return;
    this.stroke = null;
    this.strokeEnds();
  }

  strokeEnds() {
    this.strokes.push(this.drawn.length);
    this.told();
  }

  key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!this.drawing) return;
    const step = event.shiftKey ? 0.2 : 0.05, arrow = arrows[event.key];
    if (arrow) {
      this.cursor = clamp([this.cursor[0] + step * arrow[0], this.cursor[1] + step * arrow[1]]);
    } else if (event.key === ' ') {
      this.drop(this.cursor, 8);
      this.strokeEnds();
    } else if (Number(event.key) >= 1 && Number(event.key) <= COLOURS.length) {
      this.brush = Number(event.key) - 1;
    } else {
      return;
    }
    event.preventDefault();
    this.keyed = true;
    this.update();
  }

  drop(at, n, tell = true) {
    const more = [];
    for (let i = 0; i < n && this.drawn.length + more.length < MOST; i++) {
      const [dx, dy] = normal();
      more.push([...clamp([at[0] + 0.022 * dx, at[1] + 0.022 * dy]).map(round), this.brush]);
    }
    this.redraw(this.drawn.concat(more), tell);
  }

  redraw(points, tell = true) {
    this.drawn = this.points = points;
    this.request = { ...this.request, points, label: null };
    this.topic = null;
    this.quiet = true;
    this.cancel();
    if (points.length >= ENOUGH) this.ask(DRAWN_AFTER);
    if (tell) this.update();
  }

  // ---- the server ------------------------------------------------------------------------------

  // Ask after a while, unless something changes again until then. A training that is under way goes
  // on where nothing that it depends on has changed.
  ask(after) {
    this.begun = true;
    if (this.drawing && this.drawn.length < ENOUGH) return;
    if (this.asked && trainingPart(this.asked) === trainingPart(this.request)) {
      this.again = true;
      return;
    }
    this.cancel();
    this.timer = setTimeout(() => this.read(), after);
  }

  cancel() {
    clearTimeout(this.timer);
    this.run++;
    this.frames?.return?.()?.catch?.(() => {});
    this.frames = this.asked = null;
    this.again = false;
  }

  async read() {
    const run = ++this.run, request = this.request;
    this.asked = request;
    this.problem.hidden = true;
    try {
      this.frames = this.call('plane', request)[Symbol.asyncIterator]();
      for (let next; !(next = await this.frames.next()).done;) {
        if (run !== this.run) return;
        this.receive(next.value, request);
        if (next.value.phase === 'done') break;
      }
    } catch (error) {
      if (run !== this.run) return;
      this.phase = this.done ? 'done' : 'waiting';
      this.problem.hidden = false;
      this.problem.querySelector('span').textContent = error.message || String(error);
      this.update();
    }
    if (run !== this.run) return;
    const again = this.again;
    this.cancel();
    if (again) this.ask(0);
  }

  receive(frame, request) {
    if (frame.phase === 'data') {
      this.T = frame.T;
      if (!this.drawing) this.points = frame.points;
      this.present = [...new Set(this.points.map((p) => p[2]))].sort();
      this.classes = this.present.length;
      this.next = frame;
      this.noise = frame.noise;
      this.signal(frame.alpha_bar);
      if (!this.shown || trainingPart(this.shown) !== trainingPart(request)) {
        [this.dots, this.labels, this.before, this.done] = [frame.noise, frame.labels, null, null];
        [this.phase, this.losses, this.playing, this.t] = ['waiting', [], false, this.T];
      }
    } else if (frame.phase === 'training') {
      this.phase = 'training';
      this.quiet = false;
      this.share = frame.share;
      this.losses.push(frame.loss);
      this.before = { dots: this.dots, at: this.still.matches ? -TWEEN : performance.now(), to: frame.samples };
      this.step = frame.step;
    } else if (frame.phase === 'done') {
      const trained = this.phase !== 'done';
      frame.field.longest = longest(frame.field);
      frame.way = wayOf(frame.paths);
      this.phase = 'done';
      this.quiet = false;
      this.before = null;
      this.losses.push(...(trained ? [frame.loss] : []));
      this.labels = this.next.labels;
      this.done = frame;
      this.shown = request;
      if (trained) {
        this.t = this.still.matches ? 0 : this.T;
        if (!this.still.matches) this.play();
      }
      this.seek(this.t);
    }
    this.update();
  }

  // ---- time ------------------------------------------------------------------------------------

  play() {
    if (!this.done) return;
    if (this.t <= 0) this.t = this.T;
    this.playing = true;
    this.last = performance.now();
    this.rest = 0;
    this.update();
  }

  pause() {
    this.playing = false;
    this.update();
  }

  seek(t) {
    this.t = Math.max(0, Math.min(this.T, t));
    if (this.done) this.dots = positions(this.done, this.t);
    this.update();
  }

  tick(now) {
    this.frame = 0;
    if (this.before) {
      const share = Math.min(1, (now - this.before.at) / TWEEN);
      this.dots = this.before.dots.map((p, i) => mix(p, this.before.to[i], share));
      if (share === 1) this.before = null;
    } else if (this.playing && this.done) {
      const past = Math.min(100, now - this.last);
      this.last = now;
      if (this.t > 0) {
        this.t = Math.max(0, this.t - (this.T * past) / PLAY);
      } else if ((this.rest += past) > REST) {
        [this.t, this.rest] = [this.T, 0];
      }
      this.dots = positions(this.done, this.t);
      this.tell();
    }
    this.stage.draw(this.view());
    if (this.visible && (this.playing || this.before)) this.paint();
  }

  paint() {
    this.frame ||= requestAnimationFrame((now) => this.tick(now));
  }

  view() {
    return {
      points: this.points, noise: this.noise, labels: this.labels, dots: this.dots, done: this.done, t: this.t, T: this.T,
      show: this.show, phase: this.describe(), share: this.share, request: this.request, brush: this.brush,
      topic: this.topic, quiet: this.quiet, cursor: this.drawing ? this.cursor : null,
      focused: this.canvas.matches(':focus-visible, :hover') && !this.stroke,
      neutral: this.request.guidance === 0 || this.phase === 'waiting',
    };
  }

  describe() {
    if (!this.quiet) return this.phase;
    return this.drawn.length < ENOUGH ? 'few' : 'drawing';
  }

  // ---- what the page says ----------------------------------------------------------------------

  update() {
    const { request } = this;
    const points = this.drawing ? 'draw' : request.points;
    for (const [name, value] of Object.entries({ ...request, points })) {
      const input = this.root.querySelector(`input[type=radio][name=${name}][value="${value}"]`);
      if (input) input.checked = true;
    }
    for (const name of Object.keys(SHOWN)) this.find(`input[name=${name}]`).checked = this.show[name];
    const silent = TELLS_NOTHING[request.schedule] ?? [];
    for (const input of this.root.querySelectorAll('input[name=target]')) {
      input.disabled = silent.includes(input.value);
      input.parentElement.title = input.disabled ? 'This schedule ends in noise alone, of which it tells nothing' : '';
    }
    this.sliderSays('steps', STEPS.indexOf(request.steps), String(request.steps));
    const one = this.classes === 1;
    this.find('input[name=guidance]').disabled = one;
    this.sliderSays('guidance', request.guidance, one ? 'needs two classes' : String(request.guidance));
    this.updateClasses();
    this.updatePen();
    this.updateStage();
    this.updateNumbers();
    this.tell();
    this.paint();
  }

  sliderSays(name, value, text) {
    const input = this.find(`input[name=${name}]`);
    input.value = value;
    input.setAttribute('aria-valuetext', text);
    input.style.setProperty('--share', (value - input.min) / (input.max - input.min));
    input.parentElement.querySelector('output').textContent = text;
  }

  updateClasses() {
    this.classChips.hidden = this.classes === 1;
    const present = this.present ?? [0, 1], made = present.join();
    if (this.made !== made) {
      this.made = made;
      this.classChips.querySelector('div').innerHTML = [null, ...present].map((k) => k === null
        ? chip('label', 'all', 'all')
        : chip('label', k, `<i class="plane-swatch" style="--colour: ${COLOURS[k]}"></i>${k + 1}`)).join('');
    }
    const chosen = this.request.label ?? 'all';
    const input = this.classChips.querySelector(`input[value="${chosen}"]`);
    if (input) input.checked = true;
  }

  updatePen() {
    this.pen.hidden = !this.drawing;
    for (const button of this.pen.querySelectorAll('[data-brush]')) {
      button.setAttribute('aria-pressed', Number(button.dataset.brush) === this.brush);
    }
    this.pen.querySelector('[data-pen=undo]').disabled = !this.strokes.length;
    const n = this.drawn.length, where = this.cursor.map((x) => x.toFixed(2)).join(', ');
    const count = n >= MOST ? `${n} points, which is all there can be`
      : n < ENOUGH ? `${n} of at least ${ENOUGH} points` : `${n} points`;
    this.pen.querySelector('small').textContent = this.keyed ? `${count}; cursor at ${where}` : count;
  }

  updateStage() {
    const training = this.phase === 'training' && !this.quiet;
    this.canvas.tabIndex = this.drawing ? 0 : -1;
    this.canvas.setAttribute('role', this.drawing ? 'application' : 'img');
    this.canvas.setAttribute('aria-label', this.drawing
      ? 'Draw points: arrow keys move the cursor, space drops points, 1 to 5 choose the class'
      : 'Points in the plane: the data, and samples on their way from noise');
    this.canvas.classList.toggle('plane-drawable', this.drawing);
    this.find('.plane-bar').hidden = !training;
    this.find('.plane-bar i').style.width = `${100 * this.share}%`;
    const waiting = this.phase === 'waiting' && this.problem.hidden && !this.quiet;
    const said = training ? 'Training' : waiting ? (this.next ? 'Training begins' : 'Asking the server') : '';
    if (this.status.textContent !== said) this.status.textContent = said;
    this.status.hidden = !said;
    this.slider.disabled = this.playButton.disabled = !this.done || this.quiet;
    this.slider.max = this.T;
    this.playButton.setAttribute('aria-label', this.playing ? 'Pause' : 'Play from noise to data');
    this.playButton.innerHTML = this.playing
      ? '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M7 5h3.500v14H7zM13.500 5H17v14h-3.500z"/></svg>'
      : '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M8 5.200v13.600L19 12z"/></svg>';
  }

  updateNumbers() {
    const { done, losses } = this;
    const put = (name, text) => { this.find(`[data-number=${name}]`).textContent = text; };
    put('loss', losses.length ? losses.at(-1).toFixed(3) : '–');
    put('nfe', done ? String(done.nfe) : '–');
    put('distance', done ? done.distance.toFixed(3) : '–');
    this.find('.plane-numbers svg').toggleAttribute('hidden', losses.length < 2);
    const most = Math.max(...losses), least = Math.min(...losses);
    const at = losses.map((loss, i) =>
      `${(100 * i / Math.max(1, losses.length - 1)).toFixed(1)} ${(22 - 20 * (loss - least) / (most - least || 1)).toFixed(1)}`);
    this.find('.plane-numbers path').setAttribute('d', at.length > 1 ? `M${at.join('L')}` : '');
  }

  // How much of x_t is signal, over time, behind the slider.
  signal(alphaBar) {
    const n = alphaBar.length - 1;
    const at = alphaBar.map((a, i) => `${(100 - 100 * i / n).toFixed(1)} ${(20 - 20 * Math.sqrt(a)).toFixed(2)}`);
    this.find('.plane-signal').setAttribute('d', `M100 20L${at.join('L')}L0 20z`);
  }

  tell() {
    const t = Math.round(this.t);
    this.slider.value = this.T - t;
    this.slider.setAttribute('aria-valuetext', `t = ${t} of ${this.T}`);
    this.slider.style.setProperty('--share', 1 - this.t / this.T);
    this.output.textContent = `t = ${t}`;
    const view = { ...this.view(), request: this.phase === 'done' && this.shown ? this.shown : this.request };
    const say = this.find('.plane-say'), said = sentence(view);
    say.setAttribute('aria-live', this.playing || this.phase === 'training' ? 'off' : 'polite');
    if (say.textContent !== said) say.textContent = said;
  }
}

// ---- parts -------------------------------------------------------------------------------------

function chip(name, value, html) {
  return `<label class="plane-chip"><input type="radio" name="${name}" value="${value}"><span>${html}</span></label>`;
}

function chips(name, legend, choices, style = '') {
  return `<fieldset class="plane-group ${style}"><legend>${legend}</legend><div class="plane-chips">
    ${Object.entries(choices).map(([value, html]) => chip(name, value, html)).join('')}</div></fieldset>`;
}

function slider(name, label, min, max, step) {
  return `<label class="plane-slider"><span>${label}</span><output></output>
    <input type="range" name="${name}" min="${min}" max="${max}" step="${step}" aria-label="${label}"></label>`;
}

function trainingPart(request) {
  return JSON.stringify(TRAINED_ON.map((name) => request[name]));
}

function round(x) {
  return Math.round(1000 * x) / 1000;
}

function clamp([x, y]) {
  return [Math.max(-1, Math.min(1, x)), Math.max(-1, Math.min(1, y))];
}

function normal() {
  const r = Math.sqrt(-2 * Math.log(1 - Math.random())), turn = 2 * Math.PI * Math.random();
  return [r * Math.cos(turn), r * Math.sin(turn)];
}

function gaussian(n) {
  return Array.from({ length: n }, () => normal().map((x) => x / 2));
}

// What lies there when one begins to draw.
function heart() {
  const points = [];
  for (let i = 0; i < 700; i++) {
    const a = (2 * Math.PI * i) / 700, [dx, dy] = normal();
    const x = 16 * Math.sin(a) ** 3;
    const y = 13 * Math.cos(a) - 5 * Math.cos(2 * a) - 2 * Math.cos(3 * a) - Math.cos(4 * a);
    points.push([round(x / 20 + 0.02 * dx), round(y / 20 + 0.1 + 0.02 * dy), 0]);
  }
  return points;
}

// Points as text for a link: of each its class, x and y, in 3, 12 and 12 bits.
function packed(points) {
  const bits = Uint32Array.from(points, ([x, y, c]) => c << 24 | (x + 1) * 2047.5 + 0.5 << 12 | (y + 1) * 2047.5 + 0.5);
  return btoa(String.fromCharCode(...new Uint8Array(bits.buffer)));
}

function unpacked(text) {
  let bytes;
  try {
    bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return [];
  }
  if (bytes.length % 4 || bytes.length > 4 * MOST) return [];
  const points = Array.from(new Uint32Array(bytes.buffer), (v) =>
    [(v >> 12 & 4095) / 2047.5 - 1, (v & 4095) / 2047.5 - 1, v >> 24]);
  return points.every(([, , c]) => c < COLOURS.length) ? points : [];
}
