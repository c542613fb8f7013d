"""Pictures inside the page's own text: nothing is written to disk, nothing is fetched."""

import base64
import html
import io
import json

from torch import Tensor

from ..images import grid, save_animation, zoom_for

COLUMNS = 8


def png(images: Tensor, columns: int | None = None) -> str:
    """uint8 images (N, C, H, W) as one picture, in a data URI."""
    file = io.BytesIO()
    grid(images, columns or columns_for(len(images)), gap=1).save(file, "png")
    return uri(file.getvalue(), "image/png")


def gif(frames: list[Tensor]) -> str:
    """An animation of such pictures."""
    file = io.BytesIO()
    columns, zoom = columns_for(len(frames[0])), zoom_for(frames[0])
    save_animation([grid(frame, columns, zoom=zoom) for frame in frames], file, "gif")
    return uri(file.getvalue(), "image/gif")


def columns_for(n: int) -> int:
    """About square."""
    return min(COLUMNS, round(n**0.5 + 0.49))


def uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image(source: str, alt: str, classes: str = "pixels") -> str:
    return f'<img class="{classes}" src="{source}" alt="{html.escape(alt)}">'


def pane(title: str, source: str, alt: str) -> str:
    """A picture under its title, which may hold HTML of ours."""
    return f'<figure class="pane"><figcaption>{title}</figcaption>{image(source, alt)}</figure>'


def side_by_side(x: str, x0: str, caption: str, share: float) -> str:
    """x_t beside x̂_0, and how far the walk has come. A screen reader is told of the end alone: on
    the way there are twenty frames a second."""
    role = ' role="status"' if share == 1 else ""
    return (
        '<div class="stage">'
        + pane("x<sub>t</sub>, on its way", x, "noisy images at this step")
        + pane("x̂<sub>0</sub>, what the network sees in it", x0, "predicted clean images")
        + f'</div><progress class="way" max="1" value="{share:.3f}" aria-label="progress">'
        + "</progress>"
        + f'<p class="caption"{role}>{caption}</p>'
    )


def film(frames: list[tuple[str, str, str]], downloads: str) -> str:
    """A finished walk: a slider over its frames (x_t, x̂_0, caption), moved by the script in the
    page, and links to take it home."""
    last = len(frames) - 1
    x, x0, caption = frames[-1]
    data = html.escape(json.dumps(frames), quote=True)
    return (
        f'<div class="film" data-frames="{data}">'
        + side_by_side(x, x0, caption, 1.0)
        + '<label class="scrub">Back and forth through the steps '
        + f'<input type="range" min="0" max="{last}" value="{last}" step="1"></label>'
        + f'<p class="downloads">{downloads}</p></div>'
    )


# The page puts a new film into the old one's elements: what was read of it is forgotten, and the
# slider is where the film opens.
SCRUB = """
let frames = null;
watch('value', () => {
  frames = null;
  const slider = element.querySelector('.scrub input');
  if (slider) slider.value = slider.max;
});
element.addEventListener('input', (event) => {
  const film = event.target.closest('.film');
  if (!film) return;
  frames ??= JSON.parse(film.dataset.frames);
  const [x, x0, caption] = frames[event.target.value];
  const [left, right] = film.querySelectorAll('img');
  left.src = x;
  right.src = x0;
  film.querySelector('.caption').innerHTML = caption;
  film.querySelector('.way').value = event.target.value / event.target.max;
});
"""


def download(source: str, name: str, text: str) -> str:
    return f'<a class="take" download="{name}" href="{source}">{text}</a>'
