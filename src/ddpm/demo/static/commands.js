// What is on the stage as a command, and as Python.

import {count, model, settings, state} from './state.js';

const NAMES = {sampler: 'sampler', steps: 'steps', spacing: 'spacing', eta: 'eta', guidance: 'guidance',
  guidance_above: 'guidance-above', guidance_below: 'guidance-below'};

const quoted = (text) => /^[\w./-]+$/.test(text) && !text.startsWith('-') ? text
  : `'${text.replaceAll("'", "'\\''")}'`;

/** Return what differs from the network's own settings. */
function chosen() {
  const own = model().sample;
  const now = {...settings(), ...(state.label === null ? {guidance: 0} : {})};
  return Object.entries(NAMES).filter(([key]) => now[key] !== own[key]).map(([key, option]) => [key, option, now[key]]);
}

export function command() {
  const label = state.label ? [`--label=${quoted(state.label)}`] : [];
  return ['ddpm generate', quoted(model().name), '--n', count(), '--seed', state.seed, ...label,
    ...chosen().flatMap(([, option, value]) => [`--${option}`, value]), '--out images.png'].join(' ');
}

export function python() {
  const changed = chosen().map(([key, , value]) => `${key}=${typeof value === 'string' ? JSON.stringify(value) : value}`);
  const label = state.label ? `, labels=[${JSON.stringify(state.label)}]` : '';
  return [
    ...(changed.length ? ['from dataclasses import replace', ''] : []),
    'from ddpm import generate, load', '',
    `checkpoint = load(${JSON.stringify(model().name)})`,
    ...(changed.length ? [`settings = replace(checkpoint.config.sample, ${changed.join(', ')})`] : []),
    `samples = generate(checkpoint, ${count()}, seed=${state.seed}${label}${changed.length ? ', settings=settings' : ''})`,
    'print(samples.images.shape)  # uint8 (N, C, H, W)',
  ].join('\n');
}
