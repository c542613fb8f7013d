// A film of an image out of noise: large pictures, a strip of all steps, play, pause and scrub.
//
// Frame i has x at time t_i, and x0, what the network sees in it. Frames may arrive while it plays.

const SECONDS = 3, QUICKEST = 60, SLOWEST = 200;  // of a film; milliseconds of a frame
const REST = 2200;  // milliseconds on the last frame
const CELL = { least: 18, most: 120 };  // width of a picture in the strip

export class Player {
  /** parts: { x, x0, strip, scrub }; told: { frame(i), playing(yes), ended() } */
  constructor(parts, told) {
    Object.assign(this, { parts, told, film: null, at: 0, playing: false, due: 0 });
    parts.scrub.addEventListener('input', () => {
      this.pause();
      this.seek(Math.min(Number(parts.scrub.value), this.film.frames.length - 1));
    });
    new ResizeObserver(() => this.drawStrip()).observe(parts.strip);
    requestAnimationFrame((now) => this.tick(now));
  }

  /** Begin a film, { frames, steps }, whose frames go on arriving. */
  begin(film, playing, at = 0) {
    this.film = film;
    this.parts.scrub.max = film.steps;
    this.seek(at);
    if (playing) this.play();
    else this.pause();
  }

  play() {
    if (this.at >= this.film.steps) this.seek(0);
    this.due = performance.now() + this.pace();
    this.set(true);
  }

  pause() {
    this.set(false);
  }

  set(playing) {
    this.playing = playing;
    this.told.playing(playing);
  }

  pace() {
    return Math.min(SLOWEST, Math.max(QUICKEST, 1000 * SECONDS / this.film.steps));
  }

  tick(now) {
    requestAnimationFrame((next) => this.tick(next));
    if (!this.playing || now < this.due) return;
    if (this.at >= this.film.steps) {
      this.set(false);
      this.told.ended();
    } else if (this.film.frames[this.at + 1]?.x0) {
      this.seek(this.at + 1);
      this.due = now + (this.at >= this.film.steps ? REST : this.pace());
    }
  }

  seek(i) {
    this.at = i;
    this.parts.scrub.value = i;
    const frame = this.film.frames[i];
    if (!frame) return;
    draw(this.parts.x, frame.x);
    draw(this.parts.x0, frame.x0 ?? frame.x, frame.x0 ? 1 : 0.2);
    this.drawStrip();
    this.told.frame(i);
  }

  /** Show what has arrived meanwhile. */
  refresh() {
    if (this.at === this.film.frames.length - 1) this.seek(this.at);
    else this.drawStrip();
  }

  drawStrip() {
    if (!this.film) return;
    const { strip, scrub, x } = this.parts, dense = window.devicePixelRatio || 1;
    const width = strip.clientWidth, all = this.film.steps + 1;
    const cells = Math.min(all, Math.max(2, Math.floor(width / CELL.least)));
    const cell = Math.min(CELL.most, width / cells), row = cell * x.height / x.width;
    const gap = cells > 1 ? (width - cell) / (cells - 1) : 0;
    strip.style.height = `${2 * row}px`;
    scrub.style.setProperty('--cell', `${cell}px`);
    strip.width = width * dense;
    strip.height = 2 * row * dense;
    const pen = strip.getContext('2d');
    pen.scale(dense, dense);
    pen.imageSmoothingEnabled = x.width > cell;
    for (let k = 0; k < cells; k++) {
      const frame = this.film.frames[cells > 1 ? Math.round(k * (all - 1) / (cells - 1)) : 0];
      for (const [j, image] of [frame?.x, frame?.x0].entries()) {
        pen.fillStyle = '#ffffff12';
        if (image) pen.drawImage(image, k * gap + 0.5, j * row + 0.5, cell - 1, row - 1);
        else pen.fillRect(k * gap + 0.5, j * row + 0.5, cell - 1, row - 1);
      }
    }
    pen.strokeStyle = getComputedStyle(strip).color;
    pen.lineWidth = 2;
    pen.strokeRect(this.at / (all - 1) * (width - cell) + 1, 1, cell - 2, 2 * row - 2);
  }
}

function draw(canvas, image, alpha = 1) {
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.globalAlpha = alpha;
  pen.drawImage(image, 0, 0);
}
