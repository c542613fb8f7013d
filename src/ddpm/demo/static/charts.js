// Line charts as SVG, with ticks that one can read and a marker that one can drag.

import {el} from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const BOX = {width: 320, height: 190, left: 46, right: 16, top: 10, bottom: 30};

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Return at most about `most` round numbers from low to high. */
export function ticks(low, high, most = 4) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({length: Math.floor(high / step + 1e-9) - first + 1}, (_, i) => (first + i) * step);
}

export const short = (v) => Math.abs(v) >= 1e6 ? `${+(v / 1e6).toPrecision(3)} M`
  : Math.abs(v) >= 1e4 ? `${+(v / 1e3).toPrecision(3)} k`
    : v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(3));

/** Return {node, mark(x), draw(lines)}: lines are {name, points: [[x, y]]}, y logarithmic with
 *  `log`; `onmark(x)` is called where the visitor drags, and then the chart is a slider. */
export function chart({title, x = 't', log = false, lines = [], onmark, range}) {
  const picture = svg('svg', {viewBox: `0 0 ${BOX.width} ${BOX.height}`});
  const key = el('span', {class: 'key'});
  const node = el('figure', {class: 'chart'}, el('figcaption', {}, title, ' ', key), picture);
  let scale = null, shown = [], at = null;

  function draw(next) {
    shown = next.map(({name, points}) => ({name, points: points
      .filter(([, y]) => y !== null && Number.isFinite(y) && (y > 0 || !log))
      .map(([px, y]) => [px, log ? Math.log10(y) : y])}));
    key.replaceChildren(...(shown.length > 1
      ? shown.map(({name}, i) => el('span', {class: `line-${i}`}, name)) : []));
    const all = shown.flatMap((line) => line.points);
    picture.setAttribute('aria-label', all.length ? title : `${title}: nothing yet`);
    if (!all.length) {
      scale = null;
      picture.replaceChildren(svg('text', {x: BOX.width / 2, y: BOX.height / 2,
        'text-anchor': 'middle'}, 'on its way'));
      return;
    }
    const xs = all.map(([px]) => px), ys = all.map(([, y]) => y);
    const [low, high] = range ?? [Math.min(...ys), Math.max(...ys)];
    const pad = (high - low || 1) * (range ? 0 : 0.06);
    const limits = {x0: Math.min(...xs), x1: Math.max(...xs), y0: low - pad, y1: high + pad};
    const w = BOX.width - BOX.left - BOX.right, h = BOX.height - BOX.top - BOX.bottom;
    scale = {
      ...limits,
      x: (v) => BOX.left + (v - limits.x0) / (limits.x1 - limits.x0 || 1) * w,
      y: (v) => BOX.top + (limits.y1 - v) / (limits.y1 - limits.y0) * h,
      back: (px) => limits.x0 + (px - BOX.left) / w * (limits.x1 - limits.x0),
    };
    const parts = [];
    for (const v of log ? ticks(limits.y0, limits.y1, 4).filter(Number.isInteger)
      : ticks(limits.y0, limits.y1, 4)) {
      parts.push(svg('line', {class: 'grid', x1: BOX.left, x2: BOX.width - BOX.right,
        y1: scale.y(v), y2: scale.y(v)}));
      parts.push(svg('text', {x: BOX.left - 5, y: scale.y(v) + 4, 'text-anchor': 'end'},
        log ? short(10 ** v) : short(v)));
    }
    for (const v of ticks(limits.x0, limits.x1, 4)) {
      parts.push(svg('text', {x: scale.x(v), y: BOX.height - 14, 'text-anchor': 'middle'}, short(v)));
    }
    parts.push(svg('text', {x: BOX.width - BOX.right, y: BOX.height - 1, 'text-anchor': 'end'}, x));
    for (const [i, {points}] of shown.entries()) {
      const at = points.map(([px, y]) => [scale.x(px), scale.y(y)]);
      parts.push(at.length === 1 ? svg('circle', {class: `line-${i}`, cx: at[0][0], cy: at[0][1], r: 3})
        : svg('polyline', {class: `line line-${i}`, points: at.map(([px, y]) => `${px.toFixed(1)},${y.toFixed(1)}`).join(' ')}));
    }
    parts.push(svg('g', {class: 'marker'}));
    picture.replaceChildren(...parts);
    if (at !== null) mark(at);
  }

  function mark(v) {
    at = v;
    const group = picture.querySelector('.marker');
    if (!scale || !group) return;
    const px = scale.x(Math.min(Math.max(v, scale.x0), scale.x1));
    group.replaceChildren(svg('line', {x1: px, x2: px, y1: BOX.top, y2: BOX.height - BOX.bottom}),
      ...shown.map(({points}, i) => {
        const near = points.reduce((a, b) => Math.abs(b[0] - v) < Math.abs(a[0] - v) ? b : a);
        return svg('circle', {class: `line-${i}`, cx: px, cy: scale.y(near[1]), r: 4});
      }));
    if (onmark) {
      picture.setAttribute('aria-valuenow', Math.round(v));
      picture.setAttribute('aria-valuemin', scale.x0);
      picture.setAttribute('aria-valuemax', scale.x1);
    }
  }

  if (onmark) {
    picture.setAttribute('role', 'slider');
    picture.setAttribute('aria-valuenow', 0);
    picture.setAttribute('tabindex', '0');
    const follow = (event) => {
      if (!scale || !(event.buttons & 1)) return;
      const box = picture.getBoundingClientRect();
      const v = scale.back((event.clientX - box.left) / box.width * BOX.width);
      onmark(Math.round(Math.min(Math.max(v, scale.x0), scale.x1)));
    };
    picture.addEventListener('pointerdown', (event) => {
      picture.setPointerCapture(event.pointerId);
      follow(event);
    });
    picture.addEventListener('pointermove', follow);
    picture.addEventListener('keydown', (event) => {
      const by = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -50, PageUp: 50}[event.key];
      if (!by || !scale) return;
      event.preventDefault();
      onmark(Math.round(Math.min(Math.max((at ?? scale.x0) + by, scale.x0), scale.x1)));
    });
  } else picture.setAttribute('role', 'img');
  draw(lines);
  return {node, draw, mark};
}
