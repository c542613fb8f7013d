"""Watch a run: its loss, its loss on held-out images by band of noise, and its samples, read from
its folder."""

import math
import time
import zlib
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ..checkpoint.run_dir import RunDir, find_runs
from ..config import read_toml
from ..core.ema import warm_decay
from ..utils.errors import UserError, printable
from ..utils.files import read_lines
from .pictures import data_uri

MAX_POINTS = 300  # of a curve
MAX_GRIDS = 16  # of samples, from the first to the last
FRESH_SECONDS = 30  # since a run has written something: on a disk without locks, it is training

Activity = Literal["training", "stopped", "finished"]


def runs_by_name(folder: Path) -> dict[str, RunDir]:
    """Return the runs in `folder`: those that are training first, then the last written first. The
    folder may also be that of one run."""
    runs = sorted(find_runs(folder), key=lambda r: (is_held(r), last_written(r)), reverse=True)
    return {printable(run.path.name): run for run in runs}


def last_written(run: RunDir) -> float:
    """Return when a run last wrote its metrics, or else began; 0 if neither is known."""
    for path in (run.metrics, run.config):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def is_held(run: RunDir) -> bool:
    """Return whether a process is training in the run's folder: it holds the lock there."""
    if not run.lock.exists():
        return False
    try:
        with FileLock(run.lock, fallback_to_soft=False).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return time.time() - last_written(run) < FRESH_SECONDS


def activity(run: RunDir, lines: list[dict[str, float]]) -> Activity:
    """Return whether a run is training, has spent its budget, or was stopped before."""
    if is_held(run):
        return "training"
    try:
        budget = read_toml(run.config).budget
    except UserError:
        return "stopped"
    if not lines:
        return "stopped"
    step, seconds = int(lines[-1]["step"]), lines[-1]["seconds"]
    # Its last images are drawn once the budget is spent, of whose minutes some are kept for that.
    drawn = (run.samples / f"{step:07}-ema.png").exists()
    return "finished" if drawn and budget.progress(step, seconds) >= 0.5 else "stopped"


def list_runs(folder: Path) -> list[dict[str, str]]:
    """Return the names of the runs, each with what it is doing."""
    return [
        {"name": name, "state": activity(run, read_metrics(run.metrics))}
        for name, run in runs_by_name(folder).items()
    ]


def describe_run(folder: Path, name: str, seen: str = "") -> dict[str, Any]:
    """Return the curves and the samples of the run of that name, without the samples where the page
    has them: or only its `version`, where that is the one that the page has `seen`.

    Raise UserError where there is none of that name.
    """
    run = runs_by_name(folder).get(name)
    if run is None:
        raise UserError(f"there is no run {printable(name)!r} here: choose another one")
    lines = read_metrics(run.metrics)
    state = activity(run, lines)
    grids = sorted(run.samples.glob("[!.]*-ema.png"))
    pictures = len([*run.samples.glob("[!.]*.png")])
    of_grids = f"{pictures}-{grids[-1].name if grids else ''}-{zlib.crc32(name.encode())}"
    version = f"{state} {last_written(run)} {of_grids}"
    if version == seen:
        return {"version": version}
    now = lines[-1] if lines else {}
    found = {
        "version": version, "name": name, "state": state, "now": now,
        "loss": smoothed([(line["images"], line["loss"]) for line in lines]),
        "rate": images_per_second(lines),
        "bands": held_out_by_band(run.held_out),
        "span": average_span(run, now.get("step", 0)),
    }  # fmt: skip
    if seen.rpartition(" ")[2] != of_grids:
        found["grids"] = [grid_of(path) for path in thinned(grids, MAX_GRIDS)]
    return found


def average_span(run: RunDir, step: float) -> int:
    """Return over how many steps the weights are averaged, which grows while the EMA warms up; 0
    where that is not known."""
    try:
        decay = read_toml(run.config).train.ema
    except UserError:
        return 0
    return round(1 / (1 - warm_decay(decay, int(step))))


def images_per_second(lines: list[dict[str, float]]) -> float:
    """Return how many images were learned a second, of late."""
    if len(lines) < 2:
        return 0.0
    first, last = lines[max(0, len(lines) - 20)], lines[-1]
    seconds = last["seconds"] - first["seconds"]
    return round((last["images"] - first["images"]) / seconds, 1) if seconds > 0 else 0.0


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl that have a loss and are finite."""
    keys = ("step", "images", "seconds", "loss")
    return [line for line in read_lines(path) if all(is_finite(line.get(k)) for k in keys)]


def is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def held_out_by_band(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the loss on held-out images over the images learned, for each band of noise."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in read_lines(path):
        bands = line.get("held out")
        if not is_finite(line.get("images")) or not isinstance(bands, dict):
            continue
        for band, loss in bands.items():
            if is_finite(loss):
                curves.setdefault(str(band)[:40], []).append((line["images"], loss))
    return {band: thinned(points, MAX_POINTS) for band, points in [*curves.items()][:8]}


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return means over parts of equal size: MAX_POINTS points at most."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def thinned(items: list[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly from the first to the last."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def grid_of(path: Path) -> dict[str, str]:
    """Return the grid of samples at `path`, of the averaged weights, and that of the raw ones."""
    raw = path.with_name(path.name.replace("-ema", "-raw"))
    return {"name": printable(path.name.partition("-ema")[0]), "ema": uri(path), "raw": uri(raw)}


def uri(path: Path) -> str:
    """Return a PNG file as a data URI; "" where there is none."""
    try:
        return data_uri(path.read_bytes(), "image/png")
    except OSError:
        return ""
