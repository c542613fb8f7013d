"""A run's folder, looked at while it trains: the loss, and samples of raw and averaged weights."""

import json
import math
import time
from html import escape
from pathlib import Path

from ..config import read_toml
from ..core.ema import warm_decay
from ..utils.errors import UserError
from .html import Line, chart, image, uri

POINTS = 300  # of the curve at most


def runs(folder: Path) -> dict[str, Path]:
    """The runs in a folder by name, the one that was written to last at first; of a run's own
    folder that run."""
    folder = folder.resolve()
    found = [path.parent for path in (*folder.glob("config.toml"), *folder.glob("*/config.toml"))]
    return {run.name: run for run in sorted(found, key=written, reverse=True)}


def written(run: Path) -> float:
    path = run / "metrics.jsonl"
    return path.stat().st_mtime if path.exists() else 0.0


def state(run: Path) -> str:
    age = time.time() - written(run)
    return "training now" if age < 30 else f"last written {round(age / 60)} minutes ago"


def stamp(run: Path) -> tuple[object, ...]:
    """Another one whenever `look` would show something new of a run."""
    grids = sorted(path.name for path in (run / "samples").glob("*.png"))
    return written(run), state(run), *grids[-2:]


def look(folder: Path, name: str | None) -> str:
    """The run's curve and its newest grids."""
    run = runs(folder).get(name or "")
    if run is None:
        start = "start one with <code>ddpm train</code>"
        return f"<p>There is no run in {escape(str(folder))}: {start}.</p>"
    name = escape(run.name)
    lines = read_lines(run / "metrics.jsonl")
    if not lines:
        return f"<p>{name} has begun; its first steps are on their way.</p>"
    now = lines[-1]
    spans = average_spans(run, now["step"])
    losses = [(line["images"], line["loss"]) for line in lines]
    grids = [
        f'<figure class="pane"><figcaption>{title}</figcaption>{newest(run, kind, title)}</figure>'
        for kind, title in (("ema", f"averaged weights (EMA{spans})"), ("raw", "raw weights"))
    ]
    return (
        f'<p role="status">{name}: {state(run)} · step {now["step"]:,} · {now["images"]:,} images '
        f"· {now['seconds'] / 60:.1f} minutes · loss {now['loss']:.4f}</p>"
        + chart("Loss, logarithmic", [Line("loss", smooth(losses))], x_name="images", log=True)
        + f'<div class="stage">{"".join(grids)}</div>'
    )


def average_spans(run: Path, step: float) -> str:
    """Over how many steps the average of the weights spans, which grows while it warms up."""
    try:
        decay = read_toml(run / "config.toml").train.ema
    except UserError:
        return ""
    return f" over {1 / (1 - warm_decay(decay, int(step))):,.0f} steps"


def read_lines(path: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl that are whole and make sense."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            table = json.loads(line)
            if all(math.isfinite(table[k]) for k in ("step", "images", "seconds", "loss")):
                lines.append(table)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # torn, as the last one may be while it is written
    return lines


def smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over equal parts, so that a long curve has no more than POINTS points."""
    size = max(1, math.ceil(len(points) / POINTS))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def newest(run: Path, kind: str, title: str) -> str:
    grids = sorted((run / "samples").glob(f"*-{kind}.png"))
    try:
        return image(uri(grids[-1].read_bytes(), "image/png"), f"samples of the {title}")
    except (IndexError, OSError):
        return "<p>none yet</p>"
