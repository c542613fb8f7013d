// The equations of a network and its sampler, in symbols and in numbers, as MathML.

const mi = (name) => `<mi>${name}</mi>`;
const mo = (sign) => `<mo>${sign}</mo>`;
const mn = (text) => `<mn>${text}</mn>`;
const row = (...parts) => `<mrow>${parts.join('')}</mrow>`;
const sub = (base, below) => `<msub>${base}${below}</msub>`;
const sup = (base, above) => `<msup>${base}${above}</msup>`;
const root = (...parts) => `<msqrt>${parts.join('')}</msqrt>`;
const over = (above, below) => `<mfrac>${row(above)}${row(below)}</mfrac>`;
const hat = (base) => `<mover accent="true">${base}<mo stretchy="false">^</mo></mover>`;
const bar = (base) => `<mover accent="true">${base}<mo stretchy="false">¯</mo></mover>`;
const math = (...parts) => `<math display="block">${row(...parts)}</math>`;

const s = mi('s'), t = mi('t'), zero = mn('0');
const alphaBar = (time) => sub(bar(mi('α')), time);
const signal = (time) => root(alphaBar(time)), noise = (time) => root(mn('1'), mo('−'), alphaBar(time));
const sigma = (time) => sub(mi('σ'), time);
const x = (time) => sub(mi('x'), time);
const x0 = `<mrow class="seen">${sub(hat(mi('x')), zero)}</mrow>`;
const x0Before = `<mrow class="seen"><msubsup>${hat(mi('x'))}${zero}${mo('′')}</msubsup></mrow>`;
const eps = hat(mi('ε')), epsEuler = sup(hat(mi('ε')), mo('′')), z = mi('z');
const sigma2 = sup(mi('σ'), mn('2'));
const OUT = { eps, v: hat(mi('v')), u: hat(mi('u')), F: hat(mi('F')), x0: mi('f') };

const READINGS = {
  eps: [over(x(t) + mo('−') + noise(t) + eps, signal(t))],
  v: [signal(t), x(t), mo('−'), noise(t), OUT.v],
  u: [over(x(t) + mo('−') + noise(t) + OUT.u, signal(t) + mo('+') + noise(t))],
  F: [over(sub(mi('c'), '<mtext>skip</mtext>'), signal(t)), x(t), mo('+'),
    sub(mi('c'), '<mtext>out</mtext>'), OUT.F],
  x0: [OUT.x0, mo('('), x(t), mo(')')],
};

const beta = sub(mi('β'), row(t, mo('|'), s)), alpha = sub(mi('α'), row(t, mo('|'), s));
const left = row(mn('1'), mo('−'), alphaBar(s)), all = row(mn('1'), mo('−'), alphaBar(t));
const plusNoise = [mo('+'), mi('σ'), z];
const shrunk = (times) => sup(mi('e'), row(mo('−'), times, mi('h')));
const grown = (times) => row(mo('('), mn('1'), mo('−'), shrunk(times), mo(')'));

function stepInSymbols({ sampler, eta }) {
  switch (sampler) {
    case 'ddpm':
      return [over(signal(s) + beta, all), x0, mo('+'), over(root(alpha) + mo('(') + left + mo(')'), all),
        x(t), ...plusNoise];
    case 'ddim':
    case 'euler':
      return sampler === 'ddim' && eta > 0
        ? [signal(s), x0, mo('+'), root(left, mo('−'), sigma2), eps, ...plusNoise]
        : [signal(s), x0, mo('+'), noise(s), eps];
    case 'heun':
      return [over(signal(s), signal(t)), x(t), mo('+'), signal(s), mo('('), sigma(s), mo('−'), sigma(t),
        mo(')'), over(eps + mo('+') + epsEuler, mn('2'))];
    case 'dpm++': return [over(sigma(s), sigma(t)), x(t), mo('+'), signal(s), grown(''), mi('D')];
    default:
      return [over(sigma(s), sigma(t)), shrunk(''), x(t), mo('+'), signal(s), grown(mn('2')), mi('D'),
        mo('+'), sigma(s), root(mn('1'), mo('−'), shrunk(mn('2'))), z];
  }
}

const FRESH = 'z is fresh noise', SEEN = 'x̂₀′ is the x̂₀ of the step before';
const LEANING = `D = x̂₀ + (x̂₀ − x̂₀′)/2r, where ${SEEN}`;
const STEPS = {
  ddpm: `DDPM: where xₛ was, if x̂₀ is right; ${FRESH}.`,
  ddim: 'DDIM: ε̂ is the noise that xₜ has beside x̂₀',
  euler: 'Euler: ε̂ is the noise that xₜ has beside x̂₀.',
  heun: 'Heun: ε̂ is the noise that xₜ has beside x̂₀, and ε̂′ that where it leads.',
  'dpm++': `DPM-Solver++: ${LEANING}.`,
  'dpm++sde': `DPM-Solver++: ${LEANING}; ${FRESH}.`,
};
const SYMBOLS = { eps: 'ε̂', v: 'v̂', u: 'û', F: 'F̂', x0: 'f' };

/** { reading, step } in words: what the letters mean. */
export function inWords({ target, settings: { sampler, eta } }) {
  const end = sampler !== 'ddim' ? '' : eta > 0 ? `; ${FRESH}.` : '.';
  return {
    reading: `${SYMBOLS[target]} is what the network puts out; x̂₀ is kept within black and white.`,
    step: STEPS[sampler] + end,
  };
}

/** { reading, step }: what the network sees, and the step from t to s. */
export function inSymbols(model) {
  return {
    reading: math(x0, mo('='), ...READINGS[model.target]),
    step: math(x(s), mo('='), ...stepInSymbols(model.settings)),
  };
}

/** The same with the numbers that were computed with, where a state was reached. */
export function inNumbers(model, { t: from, s: to, reading, step }) {
  const names = {
    x_t: x(mn(from)), out: OUT[model.target], x0, eps, z, x0_before: x0Before, eps_euler: epsEuler,
  };
  return {
    reading: math(x0, mo('='), ...terms(reading, names)),
    step: math(x(mn(to)), mo('='), ...terms(step, names)),
  };
}

function terms(list, names) {
  return list.map(([c, name], i) => {
    const sign = c < 0 ? mo('−') : i ? mo('+') : '';
    return `${sign}${mn(rounded(Math.abs(c)))}<mspace width="0.12em"/>${names[name]}`;
  });
}

function rounded(c) {
  if (c !== 0 && c < 0.001) return '0.000';
  return c.toFixed(c >= 100 ? 0 : c >= 10 ? 1 : 3);
}
