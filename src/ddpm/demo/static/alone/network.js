// The network as the page sees it: asked for an image, it tells every state.

export class Network {
  /** told: { progress(share), ready(), failed(text) } */
  constructor(model, told) {
    this.id = 0;
    this.take = () => {};
    this.worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
    this.worker.onerror = (event) => told.failed(event.message || 'the network cannot be loaded');
    this.worker.onmessage = ({ data }) => {
      if (data.kind === 'progress') told.progress(data.share);
      if (data.kind === 'ready') told.ready();
      if (data.kind === 'error') told.failed(data.text);
      if (data.kind === 'state' && data.id === this.id) this.take(data.state, data.each);
    };
    this.worker.postMessage({ model });
  }

  /** Ask for { seed, label, steps, guidance }, and with `start` for an image from that noise. What
   * was asked before is left. `take(state, each)` gets every state, and the milliseconds that one
   * evaluation of the network takes. */
  run(ask, take) {
    this.take = take;
    this.worker.postMessage({ id: ++this.id, ask });
  }
}
