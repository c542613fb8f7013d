"""Pictures and line charts inside the page's own text: nothing is written, nothing is fetched."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..utils.images import grid, save_animation, zoom_for

COLUMNS = 8
WIDTH, HEIGHT, LEFT, BOTTOM = 320, 170, 44, 22  # of a chart


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


@dataclass(frozen=True)
class Line:
    """A name for the key and its points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str = "t",
    log: bool = False,
    mark: float | None = None,
) -> str:
    """Lines over one x axis, y linear or logarithmic; `mark`: an x to point at on all of them.

    Points that the axis does not have are left out: infinite ones, and on a logarithmic one zeros.
    """

    def scaled(line: Line) -> list[tuple[float, float]]:
        there = [(x, y) for x, y in line.points if math.isfinite(y) and (y > 0 or not log)]
        return [(x, math.log10(y)) for x, y in there] if log else there

    curves = [scaled(line) for line in lines]
    points = [point for curve in curves for point in curve]
    if not points:
        return f'<figure class="chart"><figcaption>{title}: nothing yet</figcaption></figure>'
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        share_x = (x - x_low) / ((x_high - x_low) or 1)
        share_y = (y - y_low) / ((y_high - y_low) or 1)
        return LEFT + share_x * (WIDTH - LEFT - 8), (1 - share_y) * (HEIGHT - BOTTOM - 12) + 8

    def number(y: float) -> str:
        return f"{10**y:.0e}" if log else f"{round(y, 3):g}"

    base = HEIGHT - BOTTOM

    parts = [
        f'<line class="axis" x1="{LEFT}" y1="8" x2="{LEFT}" y2="{base}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}"/>'
        f'<text x="{LEFT - 4}" y="14" text-anchor="end">{number(y_high)}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">{number(y_low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{x_low:,.0f}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{x_name} = {x_high:,.0f}</text>'
    ]
    for i, curve in enumerate(curves):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve))
        parts.append(f'<polyline class="line line-{i}" points="{path}"/>')
    if mark is not None:
        x, _ = at(mark, y_low)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{base}"/>')
        for i, curve in enumerate(curves):
            if not curve:
                continue
            near = min(curve, key=lambda point: abs(point[0] - mark))
            dot_x, dot_y = at(*near)
            parts.append(f'<circle class="line-{i}" cx="{dot_x:.1f}" cy="{dot_y:.1f}" r="4"/>')
    plain = re.sub("<[^>]+>", "", title)
    key = " ".join(f'<span class="key line-{i}">{line.name}</span>' for i, line in enumerate(lines))
    return (
        f'<figure class="chart"><figcaption>{title} {key if len(lines) > 1 else ""}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(plain)}">'
        + "".join(parts)
        + "</svg></figure>"
    )
