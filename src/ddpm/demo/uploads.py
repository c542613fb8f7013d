"""A visitor's images and masks. The browser reads the file and sends it as text with the event, so
nothing is written to disk, nor served back to anyone."""

import base64
import binascii
import time

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..config import DataInfo
from ..data.decode import decode, fit, image_to_tensor, open_image
from ..data.limits import PixelBudget
from ..utils.errors import UserError
from .html import png

MAX_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
MAX_PAINTED = 1_000_000  # pixels of a mask: the canvas has a tenth of that
PIXEL_BUDGET = PixelBudget(MAX_PIXELS)  # one large image is decoded at a time

UPLOAD = f"""
element.addEventListener('change', (event) => {{
  const file = event.target.files && event.target.files[0];
  if (!file) return;
  if (file.size > {MAX_BYTES}) {{
    trigger('upload', {{name: file.name, data: ''}});
    return;
  }}
  const reader = new FileReader();
  reader.onload = () => trigger('upload', {{name: file.name, data: reader.result}});
  reader.readAsDataURL(file);
  event.target.value = '';  // so that the same file can be chosen again
}});
"""

# White strokes on a canvas of the picture's size; shown over it, sent as a PNG when a stroke ends.
# The page puts a new picture into the old one's canvas, which is fresh when its key is another.
PAINT = """
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
"""


def upload_html(text: str) -> str:
    return f'<label class="upload">{text} <input type="file" accept="image/*"></label>'


def canvas_html(image: Tensor, side: int = 336) -> str:
    """The picture, ready to be painted on."""
    height = round(side * image.shape[1] / image.shape[2])
    return (
        f'<canvas class="pixels" width="{side}" height="{height}" tabindex="0" '
        'role="application" aria-label="Paint over what is to be made anew; with the keyboard, '
        'arrows move the brush and space paints" '
        f'data-key="{time.time_ns()}" data-src="{png(image[None], 1)}"></canvas>'
        '<label>Brush <input class="brush" type="range" min="4" max="40" value="16"></label> '
        '<button type="button" class="clear">Clear</button>'
    )


def read_upload(name: str, data: str, info: DataInfo) -> tuple[Tensor, str]:
    """The image uint8 (C, H, W) in a data URI, and what the visitor should know of it.

    Raises UserError, a sentence for the visitor, where there is none.
    """
    if not data:
        raise UserError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB: choose a smaller one")
    raw = unpacked(data, MAX_BYTES)
    try:
        with open_image(raw) as file:
            w, h = file.size
            moving = w * h <= MAX_PIXELS and getattr(file, "is_animated", False)
    except Image.DecompressionBombError:
        raise UserError(f"{name} has far too many pixels: make it smaller") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image, whatever its name says") from None
    except Exception:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{name} is damaged: it cannot be read as an image") from None
    if w * h > MAX_PIXELS:
        raise UserError(f"{name} has {w:,} x {h:,} pixels, which is too many: make it smaller")
    try:
        with PIXEL_BUDGET.reserve(w * h):
            image = image_to_tensor(decode(raw), info)
    except Exception as error:
        raise UserError(f"{name} cannot be used: {error}") from None
    notes = [f"{name}: its middle, at {info.width}x{info.height}"]
    if moving:
        notes.append("it moves, so its first frame alone is used")
    return image, "; ".join(notes)


def read_mask(data: str, info: DataInfo) -> Tensor:
    """What was painted: bool (H, W), True under the brush."""
    try:
        with open_image(unpacked(data, MAX_BYTES)) as file:
            if file.size[0] * file.size[1] > MAX_PAINTED:
                raise UserError("the mask is too large")
            painted = file.convert("RGBA").getchannel("A")
    except UserError:
        raise
    except Exception:
        raise UserError("the mask could not be read: paint it again") from None
    return torch.from_numpy(np.asarray(fit(painted, (info.height, info.width))) > 127)


def unpacked(data: str, most: int) -> bytes:
    """The bytes of a data URI."""
    head, comma, text = data.partition(",")
    if not comma or not head.startswith("data:") or len(text) > most * 4 // 3 + 4:
        raise UserError("the file did not arrive whole, or is too large: choose it again")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UserError("the file did not arrive whole: choose it again") from None
