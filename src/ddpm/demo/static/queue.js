// The functions of the server, called through gradio's queue: one stream of events for the page.

const boot = JSON.parse(document.querySelector('#boot').textContent);
const session = Array.from(crypto.getRandomValues(new Uint8Array(8)),
  (byte) => byte.toString(16).padStart(2, '0')).join('');
const inboxes = new Map(); // of the calls that are under way, by the event's name
const early = []; // messages that came before their event's name was known
let stream = null;
let failures = 0;

class Inbox {
  items = [];

  push(item) {
    this.items.push(item);
    this.wake?.();
  }

  async next() {
    while (!this.items.length) await new Promise((wake) => { this.wake = wake; });
    return this.items.shift();
  }
}

function listen() {
  if (stream || !inboxes.size) return;
  const own = stream = new EventSource(`gradio_api/queue/data?session_hash=${session}`);
  let ended = false; // the server ends it: where we did, it would drop what was asked meanwhile
  const close = () => { own.close(); if (stream === own) stream = null; };
  own.onmessage = ({data}) => {
    failures = 0;
    const message = JSON.parse(data);
    if (message.msg === 'close_stream') {
      ended = true;
      stream = null;
      listen();
    } else if (inboxes.has(message.event_id)) {
      inboxes.get(message.event_id).push(message);
    } else if (message.msg === 'unexpected_error' || message.msg === 'server_stopped') {
      close();
      for (const inbox of inboxes.values()) inbox.push({msg: 'lost'});
    } else {
      early.push(message);
      early.splice(0, early.length - 50);
    }
  };
  own.onerror = () => {
    close();
    if (ended) return;
    failures += 1;
    if (failures < 4) setTimeout(listen, 500 * failures);
    else for (const inbox of inboxes.values()) inbox.push({msg: 'lost'});
  };
}

async function send(path, body) {
  try {
    return await fetch(path, {method: 'POST', headers: {'Content-Type': 'application/json'},
      body: JSON.stringify(body)});
  } catch {
    throw new Error('The server does not answer: is it still running?');
  }
}

/** Apply gradio's differences to a value, and return it. */
function patch(value, changes) {
  for (const [what, path, change] of changes) {
    if (!path.length) {
      value = what === 'append' ? value + change : change;
      continue;
    }
    const parent = path.slice(0, -1).reduce((node, key) => node[key], value);
    const key = path.at(-1);
    if (what === 'append') parent[key] += change;
    else if (what !== 'delete') {
      if (what === 'add' && Array.isArray(parent)) parent.splice(key, 0, change);
      else parent[key] = change;
    } else if (Array.isArray(parent)) parent.splice(key, 1);
    else delete parent[key];
  }
  return value;
}

/** Yield what a function of the server yields, or returns. `signal` ends it there too; `place` is
 *  told how many are before it. Throws an Error with a sentence for the visitor. */
export async function* call(name, ask = {}, {signal, place} = {}) {
  const fn_index = boot.functions[name];
  signal?.throwIfAborted();
  const answer = await send('gradio_api/queue/join', {data: [ask], fn_index, session_hash: session});
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(String(told.detail ?? 'This did not work: try again'));
  const {event_id} = told;
  const inbox = new Inbox();
  inboxes.set(event_id, inbox);
  for (const message of early.filter((m) => m.event_id === event_id)) inbox.push(message);
  listen();
  const abort = () => inbox.push({msg: 'aborted'});
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  let value, ended = false;
  try {
    for (;;) {
      const message = await inbox.next();
      if (message.msg === 'estimation') place?.(message.rank, message.queue_size);
      if (message.msg === 'process_generating' && message.success !== false) {
        const [data] = message.output.data;
        value = value === undefined ? data : patch(structuredClone(value), data);
        yield value;
      }
      if (message.msg === 'process_completed') {
        ended = true;
        if (!message.success) throw new Error(message.output.error ?? 'This did not work');
        if (value === undefined && message.output.data) yield message.output.data[0];
        return;
      }
      if (message.msg === 'lost') throw new Error('The server does not answer: is it running?');
      if (message.msg === 'aborted') throw new DOMException('aborted', 'AbortError');
    }
  } finally {
    inboxes.delete(event_id);
    signal?.removeEventListener('abort', abort);
    // By its event alone (demo/queue.py): by its function, gradio would end the next call of it too.
    if (!ended) send('gradio_api/cancel', {session_hash: session, fn_index: -1, event_id}).catch(() => {});
  }
}

/** Return what a function of the server returns. */
export async function ask(name, value = {}, options = {}) {
  for await (const answer of call(name, value, options)) return answer;
  throw new Error('This did not work: try again');
}

export {boot};
