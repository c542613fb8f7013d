// A film of sampling: x_t beside x̂_0 on a dark stage, with a strip to play, loop and scrub.

import {button, counted, el, loadImage, notice, reducedMotion, saveAs, sub} from './dom.js';
import {ask, boot} from './queue.js';
import {svg} from './charts.js';

const FPS = 10;
const REST = 14; // frames' time on the last one, before the film begins again
const GAP = 1; // pixels between the images of a grid
const THUMBS = 12;

/** What one sees, in a sentence, by ᾱ_t. */
function sentence(frame, last) {
  const share = frame.alpha_bar;
  if (frame.step === 0) return 'Pure static. Out of this noise, and nothing else, the images will come.';
  if (last && frame.step === last.steps) {
    return `Done: ${counted(last.nfe, 'evaluation')} of the network in ${last.seconds} s. Nothing is left of the noise.`;
  }
  if (share < 0.05) return 'Still noise to the eye; yet the network sees the first shapes in it, on the right.';
  if (share < 0.5) return 'The network’s guess is already a picture, while most of the image is still noise.';
  if (share < 0.95) return 'The noise recedes; what the images show is settled, and details are filled in.';
  return 'The last steps: the noisy image and the guess become one.';
}

export class Film {
  /** `before`: figures to stand before x_t and x̂_0; `actions`: buttons beside the downloads. */
  constructor({before = [], actions = []} = {}) {
    this.frames = [];
    this.at = 0;
    this.focus = null; // the image that is enlarged
    this.looping = !reducedMotion();
    this.playing = false;
    this.live = false;
    this.model = null;
    this.screens = ['x', 'x0'].map((kind) => el('canvas', {width: 64, height: 64, 'data-kind': kind}));
    const screen = (canvas, text) => el('button', {type: 'button', class: 'screen',
      'aria-label': `${text}: enlarge one image, and back`, title: 'Enlarge one image',
      onclick: (event) => this.enlarge(event, canvas),
      onkeydown: (event) => this.turn(event)}, canvas);
    this.panes = el('div', {class: `panes count-${2 + before.length}`}, before,
      el('figure', {class: 'pane'}, el('figcaption', {}, sub('x', 't'), ' the noisy image'),
        screen(this.screens[0], 'Noisy images')),
      el('figure', {class: 'pane'}, el('figcaption', {}, sub('x̂', '0'), ' the network’s guess'),
        screen(this.screens[1], 'Clean images that the network predicts')));
    this.says = el('p', {class: 'says'});
    this.play = button('▶', () => this.toggle(), {class: 'play', 'aria-label': 'Play'});
    this.loop = button('↻', () => this.setLoop(!this.looping), {class: 'loop', 'aria-label': 'Loop',
      'aria-pressed': this.looping, title: 'Loop'});
    this.range = el('input', {type: 'range', min: 0, max: 0, value: 0, step: 1,
      'aria-label': 'Step of the film', oninput: () => { this.pause(); this.show(Number(this.range.value)); }});
    this.caption = el('output', {class: 'caption', 'aria-live': 'off'});
    this.strip = el('div', {class: 'strip', 'aria-hidden': 'true'});
    this.strip.addEventListener('pointerdown', (event) => this.grab(event));
    this.strip.addEventListener('pointermove', (event) => { if (event.buttons & 1) this.grab(event); });
    this.decided = el('figure', {class: 'decided', hidden: true});
    this.status = el('p', {class: 'visually-hidden', role: 'status'});
    this.png = button('PNG', () => this.savePng(), {title: 'Save the picture that is shown'});
    this.film = ['gif', 'webp'].map((kind) => button(kind === 'gif' ? 'GIF' : 'WebP',
      () => this.saveFilm(kind), {title: 'Save the film: it is made when asked for'}));
    this.bar = el('div', {class: 'actions'}, actions, el('span', {class: 'downloads'},
      'Save ', this.png, ...this.film));
    this.node = el('section', {class: 'film', 'aria-label': 'Stage'}, this.panes, this.says,
      el('div', {class: 'transport'}, this.play, this.loop,
        el('div', {class: 'track'}, this.strip, this.range), this.caption),
      this.decided, this.bar, this.status);
    this.clock = setInterval(() => this.tick(), 1000 / FPS);
  }

  /** Begin a new film, of a model; what is shown stays until its first frame. */
  begin(model) {
    this.coming = model;
    this.model ??= model;
    this.next = [];
    this.live = true;
    this.rest = 0;
    this.node.dataset.film = 'waiting';
  }

  /** Add a frame as it comes from the server. */
  async add(frame) {
    const film = this.next;
    [frame.image, frame.guess] = await Promise.all([loadImage(frame.x), loadImage(frame.x0)]);
    if (film !== this.next) return; // another film has begun
    this.node.dataset.film = 'coming';
    if (this.frames !== film) this.reset(film);
    if (frame.passing) {
      this.last = frame;
      this.draw(frame);
      return;
    }
    this.push(frame);
    if (!reducedMotion() || frame.step === 0 || frame.nfe) this.show(film.length - 1);
    if (frame.nfe) this.end();
  }

  push(frame) {
    this.last = null;
    this.frames.push(frame);
    this.range.max = this.frames.length - 1;
  }

  reset(film) {
    if (this.coming.name !== this.model.name) this.focus = null;
    this.model = this.coming;
    this.frames = film;
    this.last = null;
    this.strip.replaceChildren();
    this.decided.hidden = true;
    this.decided.replaceChildren();
    this.at = 0;
  }

  end() {
    this.live = false;
    this.node.dataset.film = 'done';
    this.playing = this.looping;
    this.rest = REST;
    this.paint();
    this.thumbs();
    const last = this.frames.at(-1);
    this.status.textContent = `Done: ${counted(last.n, 'image')} in ${last.seconds} s.`;
    this.judge();
  }

  /** A film that has ended before its last step keeps its frames, and that which was seen last. */
  cut() {
    if (!this.live) return;
    this.live = false;
    if (this.last) this.push(this.last);
    this.show(this.frames.length - 1);
    this.node.dataset.film = 'cut';
    this.thumbs();
    this.paint();
  }

  show(i) {
    this.at = Math.min(Math.max(i, 0), this.frames.length - 1);
    this.range.value = this.at;
    if (this.frames[this.at]) this.draw(this.frames[this.at]);
  }

  draw(frame) {
    this.shown = frame;
    const [, h, w] = this.model.shape;
    const columns = frame.columns, rows = Math.ceil(frame.n / columns);
    const k = this.focus !== null && this.focus < frame.n ? this.focus : null;
    const [sx, sy] = k === null ? [0, 0] : [k % columns * (w + GAP), Math.floor(k / columns) * (h + GAP)];
    const [sw, sh] = k === null ? [columns * (w + GAP) - GAP, rows * (h + GAP) - GAP] : [w, h];
    const zoom = Math.max(1, Math.ceil(440 / Math.max(sw, sh)));
    for (const canvas of this.screens) {
      if (canvas.width !== sw * zoom || canvas.height !== sh * zoom) {
        canvas.width = sw * zoom;
        canvas.height = sh * zoom;
      }
      const pen = canvas.getContext('2d');
      pen.imageSmoothingEnabled = false;
      const source = canvas.dataset.kind === 'x' ? frame.image : frame.guess;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(source, sx, sy, sw, sh, 0, 0, canvas.width, canvas.height);
    }
    const last = this.frames.at(-1)?.nfe ? this.frames.at(-1) : null;
    this.says.textContent = sentence(frame, last);
    this.caption.textContent = `step ${frame.step} of ${frame.steps} · t = ${frame.t} · ᾱ = ${frame.alpha_bar.toFixed(3)}`;
    this.range.setAttribute('aria-valuetext', this.caption.textContent);
    this.decided.querySelector('.marker')?.setAttribute('transform',
      `translate(${this.shareOfSteps()} 0)`);
    this.onshow?.(frame);
  }

  // ---- playing ------------------------------------------------------------------------------

  tick() {
    if (!this.playing || this.live || this.frames.length < 2 || document.hidden || !this.node.isConnected
      || !this.node.checkVisibility()) return;
    if (this.at < this.frames.length - 1) {
      this.show(this.at + 1);
      this.rest = REST;
    } else if (this.rest > 0) this.rest -= 1;
    else if (this.looping) {
      if (this.again?.()) return;
      this.show(0);
    } else this.pause();
  }

  toggle() {
    if (this.playing) {
      this.pause();
      return;
    }
    if (this.at === this.frames.length - 1) this.show(0);
    this.playing = true;
    this.paint();
  }

  pause() {
    this.playing = false;
    this.paint();
  }

  setLoop(on) {
    this.looping = on;
    if (on) this.playing = true;
    this.paint();
  }

  paint() {
    this.play.textContent = this.playing ? '❚❚' : '▶';
    this.play.setAttribute('aria-label', this.playing ? 'Pause' : 'Play');
    this.loop.setAttribute('aria-pressed', this.looping);
  }

  grab(event) {
    const box = this.strip.getBoundingClientRect();
    this.pause();
    this.show(Math.round((event.clientX - box.left) / box.width * (this.frames.length - 1)));
  }

  /** Small pictures of the film along the strip. */
  thumbs() {
    const n = Math.min(THUMBS, this.frames.length);
    this.strip.replaceChildren(...Array.from({length: n}, (_, i) => {
      const frame = this.frames[Math.round(i * (this.frames.length - 1) / Math.max(1, n - 1))];
      const canvas = el('canvas', {width: 56, height: 56});
      const {sx, sy, w, h} = this.part(frame, this.focus ?? 0);
      const pen = canvas.getContext('2d');
      pen.imageSmoothingEnabled = false;
      pen.drawImage(frame.guess, sx, sy, w, h, 0, 0, 56, 56);
      return canvas;
    }));
  }

  /** Where image k is in a frame. */
  part(frame, k) {
    const [, h, w] = this.model.shape;
    return {sx: k % frame.columns * (w + GAP), sy: Math.floor(k / frame.columns) * (h + GAP), w, h};
  }

  /** Image k of a frame, alone, as a data URI. */
  crop(frame, k, kind = 'guess') {
    const {sx, sy, w, h} = this.part(frame, k);
    const canvas = el('canvas', {width: w, height: h});
    canvas.getContext('2d').drawImage(frame[kind], sx, sy, w, h, 0, 0, w, h);
    return canvas.toDataURL();
  }

  // ---- one image of them --------------------------------------------------------------------

  enlarge(event, canvas) {
    const frame = this.shown;
    if (!frame) return;
    if (this.focus !== null || frame.n === 1) this.setFocus(null);
    else {
      const box = canvas.getBoundingClientRect();
      const rows = Math.ceil(frame.n / frame.columns);
      const inside = event.detail > 0; // a pointer, not a key
      const x = inside ? Math.floor((event.clientX - box.left) / box.width * frame.columns) : 0;
      const y = inside ? Math.floor((event.clientY - box.top) / box.height * rows) : 0;
      this.setFocus(Math.min(Math.max(y * frame.columns + x, 0), frame.n - 1));
    }
  }

  turn(event) {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (event.key === 'Escape') this.setFocus(null);
    if (!by || this.focus === null) return;
    event.preventDefault();
    const n = this.shown.n;
    this.setFocus((this.focus + by + n) % n);
  }

  setFocus(k) {
    this.focus = k;
    if (this.shown) this.draw(this.shown);
    if (!this.live) {
      this.thumbs();
      this.judge();
    }
  }

  // ---- when is it decided? ------------------------------------------------------------------

  /** Where the shown step is among those the classifier has seen, in percent. */
  shareOfSteps() {
    return Math.max(0, this.at - 1) / Math.max(1, this.frames.length - 2) * 100;
  }

  async judge() {
    const film = this.frames;
    if (!this.model.has_classifier || film.length < 2) return;
    try {
      const k = this.focus ?? 0;
      const seen = film.filter((frame) => frame.step > 0).slice(0, boot.limits.frames);
      const frames = seen.map((frame) => this.crop(frame, k));
      const answer = await ask('classify', {model: this.model.name, frames});
      if (film === this.frames) this.drawDecision(answer, k, seen);
    } catch (error) {
      console.warn(error);
    }
  }

  drawDecision({classes, probabilities}, k, seen) {
    const last = probabilities.at(-1);
    const winner = last.indexOf(Math.max(...last));
    let since = probabilities.length - 1;
    while (since > 0 && probabilities[since - 1][winner] > 0.5) since -= 1;
    const n = Math.max(1, probabilities.length - 1);
    const lines = classes.map((_, c) => svg('polyline', {
      class: c === winner ? 'winner' : `other other-${c % 4}`,
      points: probabilities.map((p, i) => `${(i / n * 100).toFixed(2)},${((1 - p[c]) * 38 + 1).toFixed(2)}`).join(' ')}));
    lines.push(lines.splice(winner, 1)[0]);
    const marker = svg('line', {class: 'marker', x1: 0, x2: 0, y1: 0, y2: 40,
      transform: `translate(${this.shareOfSteps()} 0)`});
    const {step} = seen[since];
    const sure = last[winner] > 0.5;
    const text = sure ? `From step ${step} on, a classifier takes it for “${classes[winner]}” (${Math.round(last[winner] * 100)} % at the end)`
      : `A classifier is not sure what it is: “${classes[winner]}” has ${Math.round(last[winner] * 100)} %`;
    const rivals = classes.map((name, c) => [name, Math.max(...probabilities.map((p) => p[c])), c])
      .filter(([, p, c]) => c !== winner && p > 0.25).sort((a, b) => b[1] - a[1]).slice(0, 3);
    this.decided.replaceChildren(
      svg('svg', {viewBox: '0 0 100 40', preserveAspectRatio: 'none', role: 'img', 'aria-label': text}, ...lines, marker),
      el('figcaption', {}, el('strong', {}, 'When is it decided? '), `${text}${this.shown?.n > 1 ? `, image ${k + 1}` : ''}.`,
        rivals.length ? ` On the way it was also close to ${rivals.map(([name, p]) => `“${name}” (${Math.round(p * 100)} %)`).join(', ')}.` : ''));
    this.decided.hidden = false;
  }

  // ---- to take home -------------------------------------------------------------------------

  savePng() {
    if (this.shown) saveAs(this.screens[this.at === this.frames.length - 1 ? 0 : 1].toDataURL(), `ddpm-${this.shown.step}.png`);
  }

  async saveFilm(kind) {
    if (!this.frames.length) return;
    const make = this.film[kind === 'gif' ? 0 : 1];
    make.disabled = true;
    try {
      const frames = this.frames.map((frame) => this.focus === null ? frame.x : this.crop(frame, this.focus, 'image'));
      const {src} = await ask('save_film', {frames: frames.slice(0, boot.limits.frames), kind});
      saveAs(src, `ddpm.${kind}`);
    } catch (error) {
      notice(error.message, 'error');
    } finally {
      make.disabled = false;
    }
  }
}
