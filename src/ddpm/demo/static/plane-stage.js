// Draws the plane: data, arrows, paths and samples, at any time t between noise and data.

export const COLOURS = ['#ff9d4d', '#6cb8ff', '#7fe0a8', '#c9a7ff', '#ff9ec0'];
const NEUTRAL = '#e6e9ef';
const EXTENT = 1.5; // of the plane that is seen
const FULL = 2 * Math.PI;
const MANY = 150; // paths that are drawn faintly

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.resize();
  }

  // Returns whether the size has changed, and with it everything that is drawn.
  resize() {
    const side = Math.round(this.canvas.clientWidth) || 320;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    if (this.side === side && this.ratio === ratio) return false;
    [this.side, this.ratio] = [side, ratio];
    this.canvas.width = this.canvas.height = Math.round(side * ratio);
    this.background = null;
    return true;
  }

  px(x) { return (x / EXTENT + 1) * this.side / 2; }
  py(y) { return (1 - y / EXTENT) * this.side / 2; }

  // Where in the plane a pointer is.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    return [(2 * u - 1) * EXTENT, (1 - 2 * v) * EXTENT];
  }

  draw(view) {
    const c = this.context;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.drawBackground();
    const drawing = view.cursor !== null;
    const { show, done } = view;
    if (show.data || drawing || !view.dots) this.drawData(view.points, view.quiet ? 0.85 : 0.42);
    if (drawing && view.quiet) {
      this.drawData(view.noise, 0.45, NEUTRAL);
      if (view.focused) this.drawCursor(view.cursor, view.brush);
      return;
    }
    if (done && show.field) this.drawField(done.field, view.t);
    if (done && show.paths) this.drawPaths(done, view);
    if (done && show.seen) this.drawSeen(done, view);
    if (view.dots) this.drawDots(view.dots, view.labels, view.neutral);
    if (drawing && view.focused) this.drawCursor(view.cursor, view.brush);
  }

  drawBackground() {
    const c = this.context, s = this.side;
    if (!this.background) {
      this.background = c.createRadialGradient(s / 2, s / 2, s * 0.05, s / 2, s / 2, s * 0.75);
      this.background.addColorStop(0, '#171c25');
      this.background.addColorStop(1, '#0b0e13');
    }
    c.fillStyle = this.background;
    c.fillRect(0, 0, s, s);
    c.strokeStyle = 'rgba(255, 255, 255, 0.055)';
    c.lineWidth = 1;
    c.beginPath();
    for (const at of [-1, 0, 1]) {
      c.moveTo(this.px(at), 0); c.lineTo(this.px(at), s);
      c.moveTo(0, this.py(at)); c.lineTo(s, this.py(at));
    }
    c.stroke();
  }

  drawData(points, alpha, colour) {
    const c = this.context, r = Math.max(1.1, this.side / 480);
    c.globalAlpha = alpha;
    byClass(points.map((p) => p[2] ?? 0), (k, members) => {
      c.fillStyle = colour ?? COLOURS[k];
      c.beginPath();
      for (const i of members) dot(c, this.px(points[i][0]), this.py(points[i][1]), r);
      c.fill();
    });
    c.globalAlpha = 1;
  }

  // Lengths are of the field at this t, whose longest arrows nearly touch each other.
  drawField(field, t) {
    const c = this.context, n = field.grid, cell = this.side / (n - 1);
    const [a, b, share] = between(field.t, t);
    const from = field.vectors[a], to = field.vectors[b];
    const longest = (1 - share) * field.longest[a] + share * field.longest[b] || 1;
    const levels = [[], [], []];
    for (let i = 0; i < n * n; i++) {
      const dx = (1 - share) * from[i][0] + share * to[i][0];
      const dy = (1 - share) * from[i][1] + share * to[i][1];
      const size = Math.hypot(dx, dy), strength = Math.sqrt(Math.min(1, size / longest));
      if (size > 0) levels[Math.min(2, Math.floor(3 * strength))].push([i, dx / size, dy / size, strength]);
    }
    c.lineWidth = Math.max(1, this.side / 520);
    c.lineCap = 'round';
    levels.forEach((arrows, level) => {
      c.strokeStyle = `rgba(205, 214, 230, ${[0.36, 0.3, 0.24][level]})`;
      c.beginPath();
      for (const [i, ux, uy, strength] of arrows) {
        const x = this.px((2 * (i % n) / (n - 1) - 1) * field.extent);
        const y = this.py((2 * Math.floor(i / n) / (n - 1) - 1) * field.extent);
        const l = cell * (0.2 + 0.5 * strength), h = cell * (0.06 + 0.07 * strength);
        const x1 = x + ux * l / 2, y1 = y - uy * l / 2;
        c.moveTo(x - ux * l / 2, y + uy * l / 2);
        c.lineTo(x1, y1);
        c.moveTo(x1 - h * (ux + 0.6 * uy), y1 + h * (uy - 0.6 * ux));
        c.lineTo(x1, y1);
        c.lineTo(x1 - h * (ux - 0.6 * uy), y1 + h * (uy + 0.6 * ux));
      }
      c.stroke();
    });
  }

  // The way that samples have come so far: many faintly, and a few that can be followed. Where steps
  // add noise the ways are long, and fainter.
  drawPaths(done, view) {
    const c = this.context, [k] = between(done.times, view.t);
    const stroke = (choose, alpha, width) => {
      c.globalAlpha = alpha;
      c.lineWidth = Math.max(width, width * this.side / 600);
      byClass(view.labels, (label, members) => {
        c.strokeStyle = view.neutral ? NEUTRAL : COLOURS[label];
        c.beginPath();
        for (const i of members.filter((_, order) => choose(order, members.length))) {
          const path = done.paths[i];
          c.moveTo(this.px(path[0][0]), this.py(path[0][1]));
          for (let j = 1; j <= k; j++) c.lineTo(this.px(path[j][0]), this.py(path[j][1]));
          c.lineTo(this.px(view.dots[i][0]), this.py(view.dots[i][1]));
        }
        c.stroke();
      });
    };
    const groups = new Set(view.labels).size, few = done.way > 2.5 ? groups : 3 * groups;
    c.lineJoin = 'round';
    stroke((order, n) => order % Math.ceil(n * groups / MANY) === 0, Math.min(0.3, 0.4 / done.way), 0.9);
    stroke((order, n) => order % Math.ceil(n * groups / few) === 1, 0.85, 1.4);
    c.globalAlpha = 1;
  }

  // What the network sees in each sample, as circles with a line from the sample.
  drawSeen(done, view) {
    const c = this.context, [k] = between(done.times, view.t), r = Math.max(1.8, this.side / 260);
    c.lineWidth = 1;
    byClass(view.labels, (label, members) => {
      c.strokeStyle = view.neutral ? NEUTRAL : COLOURS[label];
      c.globalAlpha = 0.12;
      c.beginPath();
      for (const i of members) {
        c.moveTo(this.px(view.dots[i][0]), this.py(view.dots[i][1]));
        c.lineTo(this.px(done.x0[i][k][0]), this.py(done.x0[i][k][1]));
      }
      c.stroke();
      c.globalAlpha = 0.75;
      c.beginPath();
      for (const i of members) dot(c, this.px(done.x0[i][k][0]), this.py(done.x0[i][k][1]), r);
      c.stroke();
    });
    c.globalAlpha = 1;
  }

  drawDots(dots, labels, neutral) {
    const c = this.context, r = Math.max(1.9, this.side / 230);
    byClass(labels, (label, members) => {
      c.fillStyle = neutral ? NEUTRAL : COLOURS[label];
      c.globalAlpha = 0.14;
      c.beginPath();
      for (const i of members) dot(c, this.px(dots[i][0]), this.py(dots[i][1]), 2.4 * r);
      c.fill();
      c.globalAlpha = 0.95;
      c.beginPath();
      for (const i of members) dot(c, this.px(dots[i][0]), this.py(dots[i][1]), r);
      c.fill();
    });
    c.globalAlpha = 1;
  }

  drawCursor([x, y], brush) {
    const c = this.context, u = this.px(x), v = this.py(y), r = this.side / 34;
    c.strokeStyle = COLOURS[brush];
    c.lineWidth = 1.5;
    c.beginPath();
    dot(c, u, v, r);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      c.moveTo(u + dx * r * 0.6, v + dy * r * 0.6);
      c.lineTo(u + dx * r * 1.4, v + dy * r * 1.4);
    }
    c.stroke();
  }
}

function dot(c, x, y, r) {
  c.moveTo(x + r, y);
  c.arc(x, y, r, 0, FULL);
}

function byClass(labels, act) {
  const groups = new Map();
  labels.forEach((label, i) => {
    if (!groups.has(label)) groups.set(label, []);
    groups.get(label).push(i);
  });
  for (const [label, members] of groups) act(label, members);
}

// Of times that fall: between which two of them t lies, and how far from the first to the second.
export function between(times, t) {
  let k = 0;
  while (k < times.length - 2 && times[k + 1] > t) k++;
  const share = (times[k] - t) / (times[k] - times[k + 1]);
  return [k, k + 1, Math.max(0, Math.min(1, share))];
}

// Where every sample is at time t.
export function positions(done, t) {
  const [a, b, share] = between(done.times, t);
  return done.paths.map((path) => mix(path[a], path[b], share));
}

export function mix([x, y], [u, v], share) {
  return [x + share * (u - x), y + share * (v - y)];
}

// The length that one arrow in twelve is longer than, for each time of a field.
export function longest(field) {
  return field.vectors.map((vectors) => {
    const sizes = vectors.map(([x, y]) => Math.hypot(x, y)).sort((a, b) => a - b);
    return sizes[Math.floor(sizes.length * 11 / 12)];
  });
}

// How far a sample goes on its way, on average.
export function wayOf(paths) {
  let way = 0;
  for (const path of paths) {
    for (let j = 1; j < path.length; j++) way += Math.hypot(path[j][0] - path[j - 1][0], path[j][1] - path[j - 1][1]);
  }
  return way / paths.length;
}
