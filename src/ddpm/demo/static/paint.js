// White strokes on a canvas of the picture's size, shown over the picture and sent as a PNG with the
// event `input` when a stroke ends. A new picture is put into the canvas of the old one: it has
// another key, and its mask is empty.
const fresh = () => {
  const canvas = element.querySelector('canvas');
  if (!canvas || canvas.key === canvas.dataset.key) return;
  canvas.key = canvas.dataset.key;
  canvas.down = false;
  canvas.mask = document.createElement('canvas');
  canvas.mask.width = canvas.width;
  canvas.mask.height = canvas.height;
  canvas.at = [canvas.width / 2, canvas.height / 2];
  canvas.picture = new Image();
  canvas.picture.onload = () => show(canvas);
  canvas.picture.src = canvas.dataset.src;
};
const show = (canvas, cursor) => {
  const pen = canvas.getContext('2d');
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = 1;
  pen.drawImage(canvas.picture, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 0.75;
  pen.drawImage(canvas.mask, 0, 0);
  if (cursor) {
    pen.strokeStyle = '#e8590c';
    pen.lineWidth = 3;
    pen.beginPath();
    pen.arc(canvas.at[0], canvas.at[1], size(canvas), 0, 7);
    pen.stroke();
  }
};
const size = (canvas) => canvas.width * element.querySelector('.brush').value / 200;
const dab = (canvas, from) => {
  const pen = canvas.mask.getContext('2d');
  pen.fillStyle = pen.strokeStyle = 'white';
  pen.lineWidth = 2 * size(canvas);
  pen.lineCap = 'round';
  pen.beginPath();
  pen.moveTo(...(from ?? canvas.at));
  pen.lineTo(...canvas.at);
  pen.stroke();
  pen.beginPath();
  pen.arc(...canvas.at, size(canvas), 0, 7);
  pen.fill();
};
const send = (canvas) => trigger('input', {mask: canvas.mask.toDataURL('image/png')});
const place = (canvas, event) => {
  const box = canvas.getBoundingClientRect();
  canvas.at = [(event.clientX - box.left) * canvas.width / box.width,
               (event.clientY - box.top) * canvas.height / box.height];
};
element.addEventListener('pointerdown', (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS') return;
  fresh();
  canvas.setPointerCapture(event.pointerId);
  canvas.down = true;
  place(canvas, event); dab(canvas); show(canvas);
});
element.addEventListener('pointermove', (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS' || !canvas.down) return;
  const from = canvas.at;
  place(canvas, event); dab(canvas, from); show(canvas);
});
element.addEventListener('pointerup', (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS' || !canvas.down) return;
  canvas.down = false;
  send(canvas);
});
element.addEventListener('keydown', (event) => {
  const canvas = event.target;
  if (canvas.tagName !== 'CANVAS') return;
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  if (ways[event.key]) {
    canvas.at = [canvas.width, canvas.height].map((most, i) =>
      Math.min(Math.max(canvas.at[i] + ways[event.key][i] * size(canvas) / 2, 0), most));
  } else if (event.key === ' ') {
    dab(canvas); send(canvas);
  } else return;
  event.preventDefault();
  show(canvas, true);
});
element.addEventListener('click', (event) => {
  if (!event.target.classList.contains('clear')) return;
  const canvas = element.querySelector('canvas');
  canvas.mask.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
  show(canvas); send(canvas);
});
watch('value', fresh);
fresh();
