"""Images, an animation player and line charts as HTML that holds all of its data: no file is
written, and nothing is fetched."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..utils.images import grid, save_animation, zoom_for

MAX_COLUMNS = 8
WIDTH, HEIGHT = 320, 170  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 44, 312, 8, 144  # of its lines
BASE = 148  # of its x axis


class Frame(NamedTuple):
    """One step of sampling: x_t and x̂_0 as data URIs, and a caption of HTML."""

    x: str
    x0: str
    caption: str


# ---- images ----------------------------------------------------------------------------------


def png(images: Tensor, columns: int | None = None) -> str:
    """Return uint8 images (N, C, H, W) as a grid: the data URI of a PNG."""
    file = io.BytesIO()
    grid(images, columns or columns_for(len(images)), gap=1).save(file, "png")
    return data_uri(file.getvalue(), "image/png")


def gif(frames: list[Tensor]) -> str:
    """Return an animation, each frame uint8 (N, C, H, W) as a grid: the data URI of a GIF."""
    file = io.BytesIO()
    columns, zoom = columns_for(len(frames[0])), zoom_for(frames[0])
    save_animation([grid(frame, columns, zoom=zoom) for frame in frames], file, "gif")
    return data_uri(file.getvalue(), "image/gif")


def columns_for(n: int) -> int:
    """Return the columns of a grid of n images that is about square."""
    return min(MAX_COLUMNS, round(n**0.5 + 0.49))


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image(source: str, alt: str) -> str:
    return f'<img class="pixels" src="{source}" alt="{html.escape(alt)}">'


def figure(title: str, source: str, alt: str) -> str:
    """Return an image under its title, which may hold HTML."""
    return f'<figure class="pane"><figcaption>{title}</figcaption>{image(source, alt)}</figure>'


def download(source: str, name: str, text: str) -> str:
    """Return a link that saves the data URI `source` as a file of that name."""
    return f'<a class="download-link" download="{name}" href="{source}">{text}</a>'


# ---- the player ------------------------------------------------------------------------------


def progress(frame: Frame, share: float) -> str:
    """Return x_t beside x̂_0, and a bar that shows the share of the steps that are done.

    Only the last frame has the role "status", which screen readers announce: there are twenty
    frames a second.
    """
    role = ' role="status"' if share == 1 else ""
    return (
        '<div class="stage">'
        + figure("x<sub>t</sub>, on its way", frame.x, "noisy images at this step")
        + figure("x̂<sub>0</sub>, what the network sees in it", frame.x0, "predicted clean images")
        + f'</div><progress class="progress-bar" max="1" value="{share:.3f}" aria-label="progress">'
        + "</progress>"
        + f'<p class="caption"{role}>{frame.caption}</p>'
    )


def player(frames: Sequence[Frame], downloads: str) -> str:
    """Return the last frame, a slider over all frames, which static/player.js moves, and the
    links `downloads`."""
    last = len(frames) - 1
    data = html.escape(json.dumps(frames), quote=True)
    return (
        f'<div class="player" data-frames="{data}">'
        + progress(frames[-1], 1.0)
        + '<label class="scrub">Back and forth through the steps '
        + f'<input type="range" min="0" max="{last}" value="{last}" step="1"></label>'
        + f'<p class="downloads">{downloads}</p></div>'
    )


# ---- charts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name in the legend, and its points (x, y)."""

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
    """Return lines over one x axis as SVG, y linear or logarithmic.

    `mark` is an x to mark on every line. Points that the axis cannot show are left out: infinite
    ones, and on a logarithmic axis zeros.
    """
    curves = [plottable(line.points, log) for line in lines]
    points = [point for curve in curves for point in curve]
    if not points:
        return f'<figure class="chart"><figcaption>{title}: nothing yet</figcaption></figure>'
    xs, ys = zip(*points, strict=True)
    axes = Axes(min(xs), max(xs), min(ys), max(ys))
    parts = [axes.svg(x_name, log)]
    for i, curve in enumerate(curves):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.at(*point) for point in curve))
        parts.append(f'<polyline class="line line-{i}" points="{path}"/>')
    if mark is not None:
        parts.append(marked(axes, curves, mark))
    label = html.escape(re.sub("<[^>]+>", "", title))
    key = " ".join(f'<span class="key line-{i}">{line.name}</span>' for i, line in enumerate(lines))
    return (
        f'<figure class="chart"><figcaption>{title} {key if len(lines) > 1 else ""}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg></figure>"
    )


def plottable(points: Sequence[tuple[float, float]], log: bool) -> list[tuple[float, float]]:
    """Return the points that can be shown, with log10(y) for a logarithmic axis."""
    shown = [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)]
    return [(x, math.log10(y)) for x, y in shown] if log else shown


@dataclass(frozen=True)
class Axes:
    """The ranges of a chart."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is in the SVG."""
        share_x = (x - self.x_min) / ((self.x_max - self.x_min) or 1)
        share_y = (y - self.y_min) / ((self.y_max - self.y_min) or 1)
        return LEFT + share_x * (RIGHT - LEFT), BOTTOM - share_y * (BOTTOM - TOP)

    def svg(self, x_name: str, log: bool) -> str:
        """Return both axes and the numbers at their ends."""

        def number(y: float) -> str:
            return f"{10**y:.0e}" if log else f"{round(y, 3):g}"

        return (
            f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{BASE}"/>'
            f'<line class="axis" x1="{LEFT}" y1="{BASE}" x2="{WIDTH}" y2="{BASE}"/>'
            f'<text x="{LEFT - 4}" y="14" text-anchor="end">{number(self.y_max)}</text>'
            f'<text x="{LEFT - 4}" y="{BASE}" text-anchor="end">{number(self.y_min)}</text>'
            f'<text x="{LEFT}" y="{HEIGHT - 6}">{self.x_min:,.0f}</text>'
            f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">'
            f"{x_name} = {self.x_max:,.0f}</text>"
        )


def marked(axes: Axes, curves: Sequence[Sequence[tuple[float, float]]], mark: float) -> str:
    """Return a vertical line at x = `mark`, and a dot where it meets each curve."""
    x, _ = axes.at(mark, axes.y_min)
    parts = [f'<line class="mark" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BASE}"/>']
    for i, curve in enumerate(curves):
        if curve:
            nearest = min(curve, key=lambda point: abs(point[0] - mark))
            x, y = axes.at(*nearest)
            parts.append(f'<circle class="line-{i}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    return "".join(parts)
