// What is on the stage as a command, and as Python.

import {count, model, state} from './state.js';

const NAMES = {sampler: 'sampler', steps: 'steps', spacing: 'spacing', sigma_min: 'sigma-min', eta: 'eta', guidance: 'guidance',
  guidance_above: 'guidance-above', guidance_below: 'guidance-below'};

const quoted = (text) => /^[\w./-]+$/.test(text) && !text.startsWith('-') ? text
  : `'${text.replaceAll("'", "'\\''")}'`;

/** Return what Create has on its stage. An `edit` has what the command's options of that name have. */
export const fromNoise = () => ({n: count(), seed: state.seed, settings: state.settings, guided: state.label !== null});

/** Return what differs from the network's own settings. */
function chosen({settings, guided}) {
  const own = model().sample;
  const now = {...own, ...settings, ...(guided ? {} : {guidance: 0})};
  return Object.entries(NAMES).filter(([key]) => now[key] !== own[key]).map(([key, option]) => [key, option, now[key]]);
}

export function command(asked) {
  const label = state.label ? [`--label=${quoted(state.label)}`] : [];
  return ['ddpm generate', quoted(model().name), '--n', asked.n, '--seed', asked.seed, ...label,
    ...Object.entries(asked.edit ?? {}).flatMap(([option, value]) => [`--${option}`, value]),
    ...chosen(asked).flatMap(([, option, value]) => [`--${option}`, value]), '--out images.png'].join(' ');
}

const literal = (value) => typeof value === 'string' ? JSON.stringify(value) : value;

export function python(asked) {
  const changed = chosen(asked).map(([key, , value]) => `${key}=${literal(value)}`);
  const files = Object.entries(asked.edit ?? {}).filter(([, value]) => typeof value === 'string');
  const edit = Object.entries(asked.edit ?? {}).map(([key, value]) =>
    `${key}=${typeof value === 'string' ? `read_${key}(Path(${literal(value)}), checkpoint.data)` : value}`);
  const more = [...(state.label ? [`labels=[${literal(state.label)}]`] : []),
    ...(changed.length ? ['settings=settings'] : []), ...(edit.length ? ['edit=edit'] : [])];
  return [
    ...(changed.length ? ['from dataclasses import replace'] : []),
    ...(files.length ? ['from pathlib import Path'] : []), ...(changed.length || files.length ? [''] : []),
    `from ddpm import ${edit.length ? 'Edit, ' : ''}generate, load`,
    ...(files.length ? [`from ddpm.data.decode import ${files.map(([key]) => `read_${key}`).join(', ')}`] : []), '',
    `checkpoint = load(${literal(model().name)})`,
    ...(changed.length ? [`settings = replace(checkpoint.config.sample, ${changed.join(', ')})`] : []),
    ...(edit.length ? [`edit = Edit(${edit.join(', ')})`] : []),
    `samples = generate(checkpoint, ${[asked.n, `seed=${asked.seed}`, ...more].join(', ')})`,
    'print(samples.images.shape)  # uint8 (N, C, H, W)',
  ].join('\n');
}
