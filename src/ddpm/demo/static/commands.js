// What is on the stage as a command, and as Python.

import {model, state} from './state.js';

// What a view gives as `asked`: {n, seed, settings, guided}, and of an edit, by the names of the
// command's options, what it begins with.

const SETTINGS = ['sampler', 'steps', 'spacing', 'sigma_min', 'eta', 'eps_scale', 'guidance', 'guidance_above', 'guidance_below'];

const quoted = (text) => /^[\w./-]+$/.test(text) && !text.startsWith('-') ? text
  : `'${text.replaceAll("'", "'\\''")}'`;

/** Return what differs from the network's own settings. */
function chosen({settings, guided, edit}) {
  const own = model().sample;
  const now = {...own, ...settings, ...(guided ? {} : {guidance: 0})};
  const idle = [...(now.sampler === 'ddim' ? [] : ['eta']),
    ...(['rho', 'log-snr'].includes(now.spacing) ? [] : ['sigma_min']),
    ...(now.guidance === 1 ? ['guidance_above', 'guidance_below'] : []),
    ...(edit && !labelled({settings}) && !model().guided ? ['guidance', 'guidance_above', 'guidance_below'] : [])];
  return SETTINGS.filter((key) => now[key] !== own[key] && !idle.includes(key)).map((key) => [key, now[key]]);
}

/** Return the class that is asked for: none is, where its network is to leave it out. */
function labelled({settings}) {
  const {guidance} = {...model().sample, ...settings};
  return guidance === 0 && !model().guided ? null : state.label;
}

export function command(asked) {
  const label = labelled(asked) ? [`--label=${quoted(state.label)}`] : [];
  return ['ddpm generate', quoted(model().name), '--n', asked.n, '--seed', asked.seed, ...label,
    ...Object.entries(asked.edit ?? {}).flatMap(([option, value]) => [`--${option}`, value]),
    ...chosen(asked).flatMap(([key, value]) => [`--${key.replaceAll('_', '-')}`, value]), '--out images.png'].join(' ');
}

const literal = (value) => typeof value === 'string' ? JSON.stringify(value) : value;

export function python(asked) {
  const changed = chosen(asked).map(([key, value]) => `${key}=${literal(value)}`);
  const files = Object.entries(asked.edit ?? {}).filter(([, value]) => typeof value === 'string');
  const edit = Object.entries(asked.edit ?? {}).map(([key, value]) =>
    `${key}=${typeof value === 'string' ? `read_${key}(Path(${literal(value)}), checkpoint.data)` : value}`);
  const more = [...(labelled(asked) ? [`labels=[${literal(state.label)}]`] : []),
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
