// A canvas to paint on, with pointer or keys: a picture, and over it a mask.

import {button, chips, el, slider} from './dom.js';

const SIDE = 320;
const PALETTE = ['#ffffff', '#000000', '#f2c9a5', '#8d5a3b', '#c92a2a', '#f08c00', '#2f9e44', '#1971c2', '#74c0fc', '#868e96'];

/** Draw something to begin with, by the size of the images. */
function scribble(pen, [channels, height]) {
  const fill = (colour, draw) => { pen.fillStyle = colour; pen.beginPath(); draw(); pen.fill(); };
  const oval = (x, y, rx, ry) => pen.ellipse(x, y, rx, ry, 0, 0, 7);
  if (channels === 1) {
    pen.fillStyle = 'black';
    pen.fillRect(0, 0, SIDE, SIDE);
    pen.strokeStyle = 'white';
    pen.lineWidth = 30;
    pen.lineCap = 'round';
    pen.beginPath();
    pen.moveTo(105, 95);
    pen.bezierCurveTo(160, 40, 250, 90, 165, 150);
    pen.bezierCurveTo(270, 170, 210, 290, 100, 230);
    pen.stroke();
  } else if (height > 48) {
    pen.fillStyle = '#8fa3b0';
    pen.fillRect(0, 0, SIDE, SIDE);
    fill('#3b2a20', () => oval(160, 140, 105, 120));
    fill('#4a5a70', () => oval(160, 345, 130, 75));
    fill('#e2b08d', () => { oval(160, 175, 76, 98); pen.rect(130, 240, 60, 60); });
    for (const x of [130, 190]) fill('#2b2018', () => oval(x, 155, 11, 7));
    fill('#c98f6f', () => oval(160, 190, 10, 16));
    fill('#a8483f', () => oval(160, 228, 27, 9));
  } else {
    pen.fillStyle = '#a9cbe8';
    pen.fillRect(0, 0, SIDE, SIDE);
    fill('#3f7fae', () => pen.rect(0, 205, SIDE, 115));
    fill('#6b4a35', () => { pen.moveTo(50, 195); pen.lineTo(275, 195); pen.lineTo(240, 250); pen.lineTo(90, 250); });
    fill('#f3efe6', () => { pen.moveTo(160, 60); pen.lineTo(160, 185); pen.lineTo(250, 185); });
  }
}

export class Sketch {
  /** `onchange()` is called when a stroke has ended, and during it. */
  constructor(shape, onchange) {
    this.onchange = onchange;
    this.masking = false;
    this.undo = [];
    this.at = [SIDE / 2, SIDE / 2];
    this.picture = el('canvas', {width: SIDE, height: SIDE});
    this.mask = el('canvas', {width: SIDE, height: SIDE});
    this.canvas = el('canvas', {class: 'sketch', width: SIDE, height: SIDE, tabindex: 0, role: 'application',
      'aria-label': 'Canvas: draw with the pointer; with the keyboard, arrows move the brush and space paints'});
    this.brush = slider({label: 'Brush', min: 2, max: 80, value: 26, onchange: () => this.show()});
    this.colours = chips({label: 'Colour', kind: 'chips colours', value: PALETTE[0],
      choices: PALETTE.map((c) => [c, el('i', {style: `background:${c}`, title: c}), c]),
      onchange: (c) => { this.colour = c; this.own.value = c; }});
    this.own = el('input', {type: 'color', value: '#ffffff', 'aria-label': 'Another colour',
      oninput: () => { this.colour = this.own.value; this.colours.choose(null); }});
    this.colour = PALETTE[0];
    this.tools = el('div', {class: 'tools'}, el('div', {class: 'palette'}, this.colours.node, this.own), this.brush.node,
      el('div', {class: 'actions'}, button('Undo', () => this.back()), button('Clear', () => this.clear())));
    this.canvas.addEventListener('pointerdown', (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.keep();
      this.move(event, true);
    });
    this.canvas.addEventListener('pointermove', (event) => { if (event.buttons & 1) this.move(event); });
    this.canvas.addEventListener('pointerup', () => this.onchange());
    this.canvas.addEventListener('keydown', (event) => this.key(event));
    this.canvas.addEventListener('blur', () => this.show());
    this.begin(shape);
  }

  /** Paint for images of this shape from here on. */
  fit(shape) {
    const [, h, w] = this.shape = shape;
    const [width, height] = [w, h].map((side) => Math.round(SIDE * side / Math.max(h, w)));
    for (const canvas of [this.picture, this.mask, this.canvas]) {
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    this.at = [width / 2, height / 2];
    this.colour = shape[0] === 1 ? '#ffffff' : this.colour;
    this.setMasking(this.masking);
  }

  /** Begin anew with a scribble for images of this shape. */
  begin(shape) {
    this.fit(shape);
    const pen = this.picture.getContext('2d');
    pen.save();
    pen.scale(this.picture.width / SIDE, this.picture.height / SIDE);
    scribble(pen, shape);
    pen.restore();
    this.unmask();
  }

  unmask() {
    this.undo = [];
    this.mask.getContext('2d').clearRect(0, 0, this.mask.width, this.mask.height);
    this.show();
  }

  /** Put a picture in place of what is drawn. */
  put(image) {
    const pen = this.picture.getContext('2d');
    const {width, height} = this.picture;
    pen.imageSmoothingEnabled = image.width >= width;
    pen.fillStyle = this.shape[0] === 1 ? 'black' : 'white';
    pen.fillRect(0, 0, width, height);
    const zoom = Math.min(image.width / width, image.height / height);
    const [w, h] = [zoom * width, zoom * height];
    pen.drawImage(image, (image.width - w) / 2, (image.height - h) / 2, w, h, 0, 0, width, height);
    this.unmask();
  }

  setMasking(on) {
    this.masking = on;
    this.tools.querySelector('.palette').hidden = on || this.shape[0] === 1;
    this.show();
  }

  get target() { return this.masking ? this.mask : this.picture; }

  get masked() {
    return this.mask.getContext('2d').getImageData(0, 0, this.mask.width, this.mask.height).data.some((v, i) => i % 4 === 3 && v);
  }

  keep() {
    const copy = el('canvas', {width: this.target.width, height: this.target.height});
    copy.getContext('2d').drawImage(this.target, 0, 0);
    this.undo.push([this.target, copy]);
    this.undo.splice(0, this.undo.length - 20);
  }

  back() {
    const [target, copy] = this.undo.pop() ?? [];
    if (!target) return;
    const pen = target.getContext('2d');
    pen.clearRect(0, 0, this.mask.width, this.mask.height);
    pen.drawImage(copy, 0, 0);
    this.show();
    this.onchange();
  }

  clear() {
    this.keep();
    const pen = this.target.getContext('2d');
    pen.clearRect(0, 0, this.mask.width, this.mask.height);
    if (!this.masking) {
      pen.fillStyle = this.shape[0] === 1 ? 'black' : this.colour;
      pen.fillRect(0, 0, this.picture.width, this.picture.height);
    }
    this.show();
    this.onchange();
  }

  move(event, first = false) {
    const box = this.canvas.getBoundingClientRect();
    const from = this.at;
    this.at = [(event.clientX - box.left) * this.canvas.width / box.width,
      (event.clientY - box.top) * this.canvas.height / box.height];
    this.dab(first ? this.at : from);
    this.onchange();
  }

  dab(from = this.at) {
    const pen = this.target.getContext('2d');
    pen.strokeStyle = this.masking ? '#ff8a4c' : this.colour;
    pen.lineWidth = this.brush.value;
    pen.lineCap = 'round';
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(this.at[0] + 0.01, this.at[1]);
    pen.stroke();
    this.show();
  }

  key(event) {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (way) this.at = this.at.map((v, i) => Math.min(Math.max(v + way[i] * this.brush.value / 2, 0), [this.canvas.width, this.canvas.height][i]));
    else if (event.key === ' ') {
      this.keep();
      this.dab();
      this.onchange();
    } else return;
    event.preventDefault();
    this.show(true);
  }

  show(cursor = document.activeElement === this.canvas) {
    const pen = this.canvas.getContext('2d');
    pen.globalAlpha = 1;
    pen.drawImage(this.picture, 0, 0);
    pen.globalAlpha = 0.75;
    pen.drawImage(this.mask, 0, 0);
    pen.globalAlpha = 1;
    if (!cursor) return;
    pen.strokeStyle = '#ff8a4c';
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(...this.at, this.brush.value / 2, 0, 7);
    pen.stroke();
  }

  get data() { return this.picture.toDataURL('image/png'); }

  /** What is to be made anew, white on black. */
  get maskData() {
    const copy = el('canvas', {width: this.mask.width, height: this.mask.height});
    const pen = copy.getContext('2d');
    pen.drawImage(this.mask, 0, 0);
    for (const [what, colour] of [['source-in', 'white'], ['destination-over', 'black']]) {
      pen.globalCompositeOperation = what;
      pen.fillStyle = colour;
      pen.fillRect(0, 0, copy.width, copy.height);
    }
    return copy.toDataURL('image/png');
  }
}
