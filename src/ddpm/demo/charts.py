"""Small line charts, as SVG in the page's own text."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, BOTTOM = 320, 170, 44, 22


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

    floor = HEIGHT - BOTTOM

    parts = [
        f'<line class="axis" x1="{LEFT}" y1="8" x2="{LEFT}" y2="{floor}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH}" y2="{floor}"/>'
        f'<text x="{LEFT - 4}" y="14" text-anchor="end">{number(y_high)}</text>'
        f'<text x="{LEFT - 4}" y="{floor}" text-anchor="end">{number(y_low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{x_low:,.0f}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{x_name} = {x_high:,.0f}</text>'
    ]
    for i, curve in enumerate(curves):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve))
        parts.append(f'<polyline class="line line-{i}" points="{path}"/>')
    if mark is not None:
        x, _ = at(mark, y_low)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{floor}"/>')
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
