// Files that are gzipped where they lie, so that they are small on every host.

/** Return all bytes of a file, unpacked; tell how many have come. */
export async function fetchWhole(name, told) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} is not there (${answer.status})`);
  const parts = [];
  let bytes = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    bytes += value.length;
    told(bytes);
  }
  const file = new Blob(parts);
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (start[0] !== 0x1f || start[1] !== 0x8b) return new Uint8Array(await file.arrayBuffer());
  const unpacked = file.stream().pipeThrough(new DecompressionStream('gzip'));  // not by the host
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}
