// The network, in a thread of its own: the page stays quick while it computes.

import * as ort from './runtime/ort.js';
import { fetchWhole } from './fetching.js';
import { Noise } from './noise.js';
import { sample } from './sampler.js';

let model, session, wanted = 0;

/** Fetch and start the network; tell how much of it has come. */
async function begin(given) {
  model = given;
  const files = [model.runtime, model.network];
  const come = files.map(() => 0), all = files.reduce((sum, file) => sum + file.bytes, 0);
  const [wasm, onnx] = await Promise.all(files.map((file, i) => fetchWhole(file.name, (bytes) => {
    come[i] = bytes;
    postMessage({ kind: 'progress', share: come.reduce((a, b) => a + b) / all });
  })));
  ort.env.wasm.numThreads = 1;  // more need headers that plain web hosts do not send
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(onnx, { executionProviders: ['wasm'] });
  await net(new Float32Array(size()), 1, model.T, [0]);  // the first run allots memory
  postMessage({ kind: 'ready' });
}

const size = () => model.shape.reduce((a, b) => a * b);

async function net(x, n, time, labels) {
  const whole = model.target !== 'F';
  const times = whole ? BigInt64Array.from({ length: n }, () => BigInt(time))
    : new Float32Array(n).fill(time);
  const feeds = {
    x_t: new ort.Tensor('float32', x, [n, ...model.shape]),
    t: new ort.Tensor(whole ? 'int64' : 'float32', times, [n]),
  };
  if (model.classes.length) {
    feeds.y = new ort.Tensor('int64', BigInt64Array.from(labels, BigInt), [n]);
  }
  return (await session.run(feeds)).out.data;
}

/** Send every state of an image, until another is asked for. */
async function run({ id, ask }) {
  if (id !== wanted) return;
  const stream = new Noise(ask.seed);
  let evaluations = 0, took = 0;
  const timed = async (x, n, ...rest) => {
    const began = performance.now(), out = await net(x, n, ...rest);
    took += performance.now() - began;
    evaluations += n;
    return out;
  };
  for await (const state of sample(model, timed, () => stream.draw(size()), ask)) {
    await new Promise((go) => setTimeout(go));  // so that a newer wish is heard
    if (id !== wanted) return;
    postMessage({ kind: 'state', id, state, each: evaluations ? took / evaluations : null });
  }
}

let last = Promise.resolve();  // of what was asked: a network computes one thing at a time

self.onmessage = ({ data }) => {
  if (data.id) wanted = data.id;
  const failed = (error) => postMessage({ kind: 'error', text: String(error?.message ?? error) });
  last = last.then(() => data.model ? begin(data.model) : run(data)).catch(failed);
};
