// The noise of `ddpm generate`: image i of a seed has the same numbers here as there.
//
// Philox 4x64 with 10 rounds (Salmon et al. 2011), keyed by (seed, i) and read as NumPy reads it: a
// block of four 64-bit words, the lower half of each first. Normals come from them by the ziggurat
// of 256 layers (Marsaglia and Tsang 2000), in 32-bit floats.

const WORD = (1n << 64n) - 1n, HALF = 0xffffffffn;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < ROUNDS; round++) {
    const a = MULTIPLIERS[0] * c0, b = MULTIPLIERS[1] * c2;
    [c0, c1, c2, c3] = [(b >> 64n) ^ c1 ^ k0, b & WORD, (a >> 64n) ^ c3 ^ k1, a & WORD];
    k0 = (k0 + WEYL[0]) & WORD;
    k1 = (k1 + WEYL[1]) & WORD;
  }
  return [c0, c1, c2, c3];
}

const EDGE = 3.6541528853610088;  // where the tail begins
const AREA = 4.92867323399e-3;  // of each layer
const density = (x) => Math.exp(-x * x / 2);
const { widths, inside, heights } = layers();

// The layers' right edges x, from the widest, 0, on: the width of a step of 23 bits, how many of
// these steps lie under the curve for sure, and the height of the curve at x.
function layers() {
  const x = [AREA / density(EDGE), EDGE];
  for (let i = 2; i < 256; i++) {
    x.push(Math.sqrt(-2 * Math.log(AREA / x[i - 1] + density(x[i - 1]))));
  }
  x.push(0);
  // NumPy counts the layers from the other end, but for the first
  const order = [0, ...Array.from({ length: 255 }, (_, i) => 255 - i)];
  return {
    widths: Float32Array.from(order, (i) => x[i] / 2 ** 23),
    inside: Uint32Array.from(order, (i) => x[i + 1] / x[i] * 2 ** 23),
    heights: Float32Array.from(order, (i) => i ? density(x[i]) : 1),
  };
}

export class Noise {
  constructor(seed, index = 0) {
    this.key = [BigInt(seed) & WORD, BigInt(index) & WORD];
    this.counter = 0n;
    this.left = [];
  }

  uint32() {
    if (!this.left.length) {
      this.counter++;
      const block = philox([this.counter & WORD, this.counter >> 64n, 0n, 0n], this.key);
      this.left = block.flatMap((word) => [Number(word & HALF), Number(word >> 32n)]).reverse();
    }
    return this.left.pop();
  }

  uniform() {
    return (this.uint32() >>> 8) / 2 ** 24;
  }

  normal() {
    for (;;) {
      const bits = this.uint32(), layer = bits & 0xff, steps = bits >>> 9;
      const x = (bits & 0x100 ? -1 : 1) * steps * widths[layer];
      if (steps < inside[layer]) return x;
      if (layer === 0) return this.tail(steps);
      const low = heights[layer], high = heights[layer - 1];
      if (low + (high - low) * this.uniform() < density(x)) return x;
    }
  }

  tail(steps) {
    for (;;) {
      const x = -Math.log1p(-this.uniform()) / EDGE, y = -Math.log1p(-this.uniform());
      if (2 * y > x * x) return steps & 0x100 ? -(EDGE + x) : EDGE + x;
    }
  }

  /** Draw n numbers from N(0, 1). */
  draw(n) {
    return Float32Array.from({ length: n }, () => this.normal());
  }
}
