"""Watch a run: its loss, and samples of its raw and its averaged weights, read from its folder."""

import json
import math
import time
from html import escape
from pathlib import Path

from ..checkpoint.run_dir import RunDir, find_runs
from ..config import read_toml
from ..core.ema import warm_decay
from ..utils.errors import UserError, counted, printable
from .html import Line, chart, data_uri, image

MAX_POINTS = 300  # of the curve
ACTIVE_SECONDS = 30  # since the last line of its metrics: longer, and a run is not training


def runs_by_name(folder: Path) -> dict[str, RunDir]:
    """Return the runs in `folder`, the last written first. The folder may also be that of one
    run."""
    runs = sorted(find_runs(folder), key=last_written, reverse=True)
    return {printable(run.path.name): run for run in runs}


def last_written(run: RunDir) -> float:
    """Return when a run last wrote its metrics; 0 if it has none."""
    return run.metrics.stat().st_mtime if run.metrics.exists() else 0.0


def activity(run: RunDir) -> str:
    """Return whether a run is training, or since when it is not."""
    age = time.time() - last_written(run)
    if age < ACTIVE_SECONDS:
        return "training now"
    return f"last written {counted(round(age / 60), 'minute')} ago"


def run_version(run: RunDir) -> tuple[object, ...]:
    """Return a value that changes whenever `run_html` would show something new."""
    grids = sorted(path.name for path in run.samples.glob("*.png"))
    return last_written(run), activity(run), *grids[-2:]


def run_html(folder: Path, name: str | None) -> str:
    """Return the loss curve and the newest samples of the run of that name in `folder`."""
    run = runs_by_name(folder).get(name or "")
    if run is None:
        start = "start one with <code>ddpm train</code>"
        return f"<p>There is no run in {escape(printable(str(folder)))}: {start}.</p>"
    name = escape(printable(run.path.name))
    lines = read_metrics(run.metrics)
    if not lines:
        return f"<p>{name} has begun; its first steps are on their way.</p>"
    now = lines[-1]
    losses = [(line["images"], line["loss"]) for line in lines]
    average = f"averaged weights (EMA{average_span(run, now['step'])})"
    grids = [
        f'<figure class="pane"><figcaption>{title}</figcaption>{newest_grid(run, kind, title)}'
        "</figure>"
        for kind, title in (("ema", average), ("raw", "raw weights"))
    ]
    return (
        f'<p role="status">{name}: {activity(run)} · step {now["step"]:,} · {now["images"]:,} '
        f"images · {now['seconds'] / 60:.1f} minutes · loss {now['loss']:.4f}</p>"
        + chart("Loss, logarithmic", [Line("loss", smoothed(losses))], x_name="images", log=True)
        + f'<div class="stage">{"".join(grids)}</div>'
    )


def average_span(run: RunDir, step: float) -> str:
    """Return over how many steps the weights are averaged, which grows while the EMA warms up."""
    try:
        decay = read_toml(run.config).train.ema
    except UserError:
        return ""
    return f" over {counted(round(1 / (1 - warm_decay(decay, int(step)))), 'step')}"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl that are complete and finite."""
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
            continue  # incomplete, as the last one may be while it is written
    return lines


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return means over parts of equal size: MAX_POINTS points at most."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def newest_grid(run: RunDir, kind: str, title: str) -> str:
    """Return the last grid of samples of a kind, "ema" or "raw"."""
    grids = sorted(run.samples.glob(f"*-{kind}.png"))
    try:
        return image(data_uri(grids[-1].read_bytes(), "image/png"), f"samples of the {title}")
    except (IndexError, OSError):
        return "<p>none yet</p>"
