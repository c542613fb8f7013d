// From noise to an image, as core/sampling.py has it: a step goes over a pair of times s < t.
//
// Each step is a sum of tensors, [coefficient, name], and so is what the network's output says of
// x_0: the page computes with these numbers and shows the same ones. `model` is model.json.

const ETA = { 'dpm++': 0, 'dpm++sde': 1 };
const SIGMA_MAX = 80.1;  // above it a step of Heun's is Euler's alone

const at = (model, t) => model.alpha_bar[t];
const snr = (a) => a / (1 - a);
const sigma = (a) => Math.sqrt((1 - a) / a);
const logSnr = (a) => Math.log(snr(a)) / 2;

/** x̂_0 = Σ coefficient · tensor, of x_t and of the network's output, before it is clipped. */
export function reading(model, t) {
  const a = at(model, t), signal = Math.sqrt(a), noise = Math.sqrt(1 - a);
  switch (model.target) {
    case 'eps': return [[1 / signal, 'x_t'], [-noise / signal, 'out']];
    case 'v': return [[signal, 'x_t'], [-noise, 'out']];
    case 'u': return [[1 / (signal + noise), 'x_t'], [-noise / (signal + noise), 'out']];
    case 'F': {
      const { skip, out } = preconditioning(model, t);
      return [[skip / signal, 'x_t'], [out, 'out']];
    }
    default: return [[1, 'out']];
  }
}

function preconditioning(model, t) {
  const s = sigma(at(model, t)), d = model.sigma_data, norm = Math.hypot(s, d);
  return { skip: (d / norm) ** 2, out: s * d / norm, in: 1 / norm, noise: Math.log(s) / 4 };
}

/** What the network is given at time t: x_t times `scale`, and the time as it knows it. */
export function asked(model, t) {
  if (model.target !== 'F') return { scale: model.scale ? model.scale[t] : 1, time: t };
  const { in: c_in, noise } = preconditioning(model, t);
  return { scale: c_in / Math.sqrt(at(model, t)), time: noise };
}

/** x_s = Σ coefficient · tensor, of x_t, x0, eps, z; of x0_before, that of the step before, which
 * was at time r; and of eps_euler, that of where Euler's step leads. */
export function step(model, s, t, r = null) {
  const { sampler, eta, variance } = model.settings;
  switch (sampler) {
    case 'ddpm': return ddpm(model, s, t, variance);
    case 'ddim': return ddim(model, s, t, eta);
    case 'euler': return ddim(model, s, t, 0);
    case 'heun': return heun(model, s, t);
    default: return dpmpp(model, s, t, r, ETA[sampler]);
  }
}

function ddpm(model, s, t, variance) {  // [DDPM, Algorithm 2]
  const a_s = at(model, s), a_t = at(model, t), alpha = a_t / a_s, beta = 1 - alpha;
  const mean = [
    [Math.sqrt(a_s) * beta / (1 - a_t), 'x0'],
    [Math.sqrt(alpha) * (1 - a_s) / (1 - a_t), 'x_t'],
  ];
  if (s === 0) return mean;
  const sigma2 = variance === 'beta' ? beta : (1 - a_s) / (1 - a_t) * beta;
  return [...mean, [Math.sqrt(sigma2), 'z']];
}

function ddim(model, s, t, eta) {  // [DDIM, Eq. 12 and 16]
  const a_s = at(model, s), a_t = at(model, t);
  const sigma2 = eta ** 2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s);
  const x = [[Math.sqrt(a_s), 'x0'], [Math.sqrt(Math.max(0, 1 - a_s - sigma2)), 'eps']];
  return eta > 0 && s > 0 ? [...x, [Math.sqrt(sigma2), 'z']] : x;
}

function dpmpp(model, s, t, r, eta) {  // [DPM-Solver++, Algorithm 2]
  if (s === 0) return [[1, 'x0']];
  const a_s = at(model, s), a_t = at(model, t), h = logSnr(a_s) - logSnr(a_t);
  const more = r === null ? 0 : h / (logSnr(a_t) - logSnr(at(model, r))) / 2;
  const kept = eta ? Math.exp(-eta * h) : 1;
  const of_x0 = -Math.sqrt(a_s) * Math.expm1(-(1 + eta) * h);
  const x = [[kept * Math.sqrt((1 - a_s) / (1 - a_t)), 'x_t'], [of_x0 * (1 + more), 'x0']];
  if (r !== null) x.push([-of_x0 * more, 'x0_before']);
  if (eta) x.push([Math.sqrt((a_s - 1) * Math.expm1(-2 * eta * h)), 'z']);
  return x;
}

function heun(model, s, t) {  // [EDM, Algorithm 1, without churn]
  const a_s = at(model, s), a_t = at(model, t);
  if (s === 0 || sigma(a_t) > SIGMA_MAX) return ddim(model, s, t, 0);
  const half = Math.sqrt(a_s) * (sigma(a_s) - sigma(a_t)) / 2;
  return [[Math.sqrt(a_s / a_t), 'x_t'], [half, 'eps'], [half, 'eps_euler']];
}

/** Yield every state of one image, { t, x } first and then { s, t, x, x0, reading, step }, where x is
 * x_s, and the network saw x0 in what was there at t.
 *
 * net    async (x, B, time, labels) => the output, of B images
 * noise  () => fresh numbers from N(0, 1), as many as an image has
 * label  the class, or null for none
 */
export async function* sample(model, net, noise, { label, steps, guidance, start }) {
  const times = model.times[steps];
  let x = start ?? noise(), before = null, r = null;
  yield { t: times[0], x };
  for (let i = 0; i < steps; i++) {
    const t = times[i], s = times[i + 1];
    const { x0, eps } = await predict(model, net, x, t, label, guidance);
    const terms = step(model, s, t, r), tensors = { x_t: x, x0, eps, x0_before: before };
    for (const [, name] of terms) {
      if (name === 'z') tensors.z = noise();
      if (name !== 'eps_euler') continue;
      const euler = sum(ddim(model, s, t, 0), tensors);
      tensors.eps_euler = (await predict(model, net, euler, s, label, guidance)).eps;
    }
    x = sum(terms, tensors);
    [before, r] = [x0, t];
    yield { s, t, x, x0, reading: reading(model, t), step: terms };
  }
}

/** x̂_0, clipped, and the ε̂ that goes with it, with guidance at the times that the settings name, and
 * ε̂ scaled [Ning et al. 2024]. */
async function predict(model, net, x_t, t, label, guidance) {
  const { guidance_above: above, guidance_below: below, eps_scale: scale } = model.settings;
  const inside = above * model.T < t && t <= below * model.T;
  const out = await guided(model, net, x_t, t, label, inside || guidance === 0 ? guidance : 1);
  const a = at(model, t), signal = Math.sqrt(a), noise = Math.sqrt(1 - a);
  const clipped = (v) => Math.min(1, Math.max(-1, v));
  const of = (x0) => ({ x0, eps: x0.map((v, i) => (x_t[i] - signal * v) / noise) });
  const pred = of(sum(reading(model, t), { x_t, out }).map(clipped));
  return scale === 1 || sigma(a) > SIGMA_MAX ? pred : of(pred.eps.map((v, i) => clipped((x_t[i] - noise * v / scale) / signal)));
}

/** out(∅) + scale (out(c) − out(∅))   [Ho and Salimans 2022, Eq. 6] */
async function guided(model, net, x_t, t, label, scale) {
  const { scale: c_in, time } = asked(model, t), nobody = model.classes.length;
  const x = c_in === 1 ? x_t : x_t.map((v) => c_in * v);
  if (label === null || scale === 0) return net(x, 1, time, [nobody]);
  if (scale === 1) return net(x, 1, time, [label]);
  const twice = new Float32Array(2 * x.length);
  twice.set(x);
  twice.set(x, x.length);
  const out = await net(twice, 2, time, [label, nobody]);
  return x.map((_, i) => out[x.length + i] + scale * (out[i] - out[x.length + i]));
}

function sum(terms, tensors) {
  const total = new Float64Array(tensors.x_t.length);
  for (const [c, name] of terms) {
    const tensor = tensors[name];
    for (let i = 0; i < total.length; i++) total[i] += c * tensor[i];
  }
  return Float32Array.from(total);
}
