"""The log of a run: metrics.jsonl and the progress bar."""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoint.run_dir import RunDir
from ..config import Config
from ..utils.distributed import Processes
from ..utils.files import append_line, atomic_write
from ..utils.streams import safe
from .state import TrainState
from .track import Tracker

PLAIN_SECONDS = 15  # between lines where there is no terminal to draw a bar on


class MetricsLog:
    """Writes the lines of metrics.jsonl and draws the progress bar.

    Losses stay on the device until a line is due. Of several processes all keep a log, and the main
    one alone writes.
    """

    def __init__(self, run: RunDir, config: Config, processes: Processes):
        self.run, self.config, self.processes = run, config, processes
        self.began, self.images_seen = time.monotonic(), 0
        self.tracker = Tracker(run, config)
        self.pending: list[Tensor] = []
        self.loss = self.lr = math.nan
        self.last_shown = -math.inf
        self.bar = tqdm(
            total=1, disable=None if processes.is_main else True, delay=1e-3,  # not drawn as yet
            file=safe(sys.stderr), bar_format="{percentage:3.0f}% {bar:24} {desc}",
        )  # fmt: skip
        self.say("compiling" if config.train.compile else "the first steps")

    def record(self, lr: float, loss: Tensor, norm: Tensor) -> None:
        """Keep what a step came to for the next line: its loss and the norm of its gradient."""
        self.lr = lr
        self.images_seen += self.config.train.batch
        self.pending.append(torch.stack([loss, norm]))

    def read(self) -> list[tuple[float, float]]:
        """Return the loss and the norm of every step since the last call, as means over all
        processes. Only here the host waits for the device."""
        if not self.pending:
            return []
        values = self.processes.mean(torch.stack(self.pending)).tolist()
        self.pending = []
        return [(loss, norm) for loss, norm in values]

    def write(self, state: TrainState, finite: Sequence[tuple[float, float]], skipped: int) -> None:
        """Write one line, of the means over the steps that were finite, and update the bar."""
        if not finite:
            return
        self.loss, norm = (sum(column) / len(finite) for column in zip(*finite, strict=True))
        line = {
            "step": state.step, "images": state.images_seen, "seconds": round(state.seconds, 3),
            "loss": self.loss, "lr": self.lr, "grad_norm": norm if math.isfinite(norm) else None,
        }  # fmt: skip
        if self.processes.is_main:
            self.run.require_held()
            append_line(self.run.metrics, line | ({"skipped": skipped} if skipped else {}))
            rate = self.images_seen / (time.monotonic() - self.began)
            numbers = {k: line[k] for k in ("loss", "lr", "grad_norm")}
            self.tracker.log(numbers | {"images per second": rate}, state.step)
            self.show(state, rate)

    def previewed(self, step: int) -> None:
        """Send what a preview of this step has written to the tracker."""
        self.tracker.log_held_out(step)
        self.tracker.log_grids(step)

    def scored(self, step: int, distance: float, n: int) -> None:
        """Send a score of this step, of n samples, to the tracker."""
        self.tracker.log({f"distance of {n:,} samples": distance}, step)

    def show(self, state: TrainState, rate: float) -> None:
        left = self.config.budget.time_left(state.images_seen, state.seconds, rate)
        progress = min(1.0, state.seconds / max(state.seconds + left, 1e-9))
        text = (
            f"step {state.step:,}  loss {self.loss:.4f}  {rate:,.0f} images/s  "
            f"{format_duration(left)} left"
        )
        if not self.bar.disable:
            self.bar.n = progress
            self.bar.set_description_str(text)
        elif time.monotonic() - self.last_shown > PLAIN_SECONDS:
            self.last_shown = time.monotonic()
            self.bar.write(f"{progress:4.0%}  {text}", file=safe(sys.stderr))

    def say(self, text: str) -> None:
        """Show what is being done, other than steps."""
        if not self.bar.disable:
            self.bar.set_description_str(text)

    def close(self) -> None:
        self.bar.close()
        self.tracker.close()


def rewind_logs(run: RunDir, step: int) -> None:
    """Have metrics.jsonl, held-out.jsonl and scores.jsonl end at a step: what is beyond will be
    logged again."""
    for path in run.logs:
        drop_lines_after(path, step)
    for path in (run.metrics, run.held_out):
        path.touch()


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and one torn by a crash, from a file of JSON lines."""
    if path.exists():
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        with atomic_write(path) as beside:
            beside.write_text("".join(line for line in lines if logged_step(line) <= step))


def logged_step(line: str) -> float:
    """Return the step of a line of metrics.jsonl, inf for a line that was torn by a crash."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def format_duration(seconds: float) -> str:
    """Return 1:02:03, or 2:03 where it is less than an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
