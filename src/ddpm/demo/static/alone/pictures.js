// Tensors as pictures.

/** Return an image of numbers in [−1, 1], channel by channel, as a canvas of its own size. */
export function picture(x, [channels, height, width]) {
  const canvas = blank(width, height), pen = canvas.getContext('2d');
  const pixels = pen.createImageData(width, height), area = width * height;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 4; c++) {  // gray is three times the same, and opaque if nothing else is said
      const from = channels === 1 ? 0 : c;
      pixels.data[4 * i + c] = c === 3 && channels < 4 ? 255 : (x[from * area + i] + 1) * 127.5;
    }
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

/** Return picture k of a sheet with so many columns. */
export function cut(sheet, k, columns, [, height, width]) {
  const canvas = blank(width, height);
  const left = k % columns * width, top = Math.floor(k / columns) * height;
  canvas.getContext('2d').drawImage(sheet, left, top, width, height, 0, 0, width, height);
  return canvas;
}

/** Return the picture enlarged by a whole number, its pixels as squares, to about `side`. */
export function enlarged(from, side = 560) {
  const zoom = Math.max(1, Math.round(side / Math.max(from.width, from.height)));
  const canvas = blank(from.width * zoom, from.height * zoom), pen = canvas.getContext('2d');
  pen.imageSmoothingEnabled = false;
  pen.drawImage(from, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function blank(width, height) {
  return Object.assign(document.createElement('canvas'), { width, height });
}
