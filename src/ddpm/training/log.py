"""A run's folder, its clock, and what a person sees of it while it lasts."""

import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..config import Config, write_toml
from ..utils.distributed import Processes
from ..utils.errors import UserError
from ..utils.files import atomic_write, is_occupied, read_text, require_writable
from .validation import overfitting_note, read_looks

MAX_NAME = 10_000  # bytes of a launch's name
MAX_BAD = 10  # batches of a run, of those that gave no number, that are kept
JUMP = 3  # times its lowest, and the loss has jumped
PLAIN_SECONDS = 15  # between lines where there is no terminal to draw a bar on


def check_folder(out: Path, resume: bool) -> None:
    """Refuse, before any work is done, a folder that is in use or cannot be written."""
    if resume and not (out / "config.toml").exists():
        raise UserError(f"there is no run to go on with in {out}")
    if not resume and is_occupied(out):
        raise UserError(f"{out} is in use: go on with it by --resume, or give another --out")
    require_writable(out)


def hold(out: Path) -> IO[str]:
    """An open file that keeps every other process from training in this folder. The system lets go
    of it when it is closed, or however the process ends.

    Raises UserError where another one has it. Where there are no such locks, as on Windows or on
    some disks of the network, it keeps nobody out.
    """
    path = out / "state" / "lock"
    path.parent.mkdir(exist_ok=True)
    file = path.open("a+")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"another process is training in {out}: let it end, or stop it") from None
    except (ImportError, OSError):
        pass
    file.truncate(0)
    file.write(launch())
    file.flush()
    return file


def launch() -> str:
    """What a process has in common with those that torchrun starts in its place, and with no
    others: the job's name, or where it was given none, the launcher itself."""
    job = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return job if job != "none" else f"{socket.gethostname()} {os.getppid()}"


def restarted(out: Path) -> bool:
    """Whether torchrun has started everything anew, by the same words, after a process died, and
    the run in this folder is the one that it began."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    try:
        begun_by = read_text(out / "state" / "lock", MAX_NAME)
    except (OSError, ValueError):
        return False
    return (out / "config.toml").exists() and begun_by == launch()


class Due(NamedTuple):
    """The seconds of the run, whether it is to stop, and what is due."""

    seconds: float
    stop: bool
    save: bool
    sample: bool


class MetricsLog:
    """metrics.jsonl and the progress bar. Losses are read from the device only when one is due.

    Made when the work begins: it makes the folder's parts, writes the config and starts the clock.
    `step` and `seconds` are how far the run had come before. Of several processes all keep a log,
    and the main one alone writes; it has the `lock` of the folder.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        processes: Processes,
        step: int = 0,
        seconds: float = 0.0,
        lock: IO[str] | None = None,
    ):
        self.config, self.processes = config, processes
        self.lock = lock or open(os.devnull, "w")  # noqa: SIM115
        self.file: IO[str] = self.lock
        self.first_step, self.first_seconds = step, seconds
        self.start = time.monotonic()
        self.last_saved = self.last_sampled = seconds
        self.sampling_began, self.sampling_time = seconds, 0.0
        self.loss = math.nan
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.nonfinite_steps = self.rollbacks = self.kept = 0
        self.skipped: list[int] = []
        self.noted_overfitting = False
        self.lowest, self.noted_jump = math.inf, False
        self.all_finite = True  # no step was skipped up to the last line from the one before
        self.path, self.looks = out / "metrics.jsonl", out / "held-out.jsonl"
        if processes.is_main:
            (out / "samples").mkdir(exist_ok=True)
            write_toml(config, out / "config.toml")
            self.file = opened_up_to(self.path, step)
            opened_up_to(self.looks, step).close()
        self.bar = tqdm(
            total=1, disable=None if processes.is_main else True,
            bar_format="{percentage:3.0f}% {bar:24} {desc}",
        )  # fmt: skip
        self.last_line = -math.inf
        self.last = Due(seconds, False, False, False)

    @property
    def seconds(self) -> float:
        return self.first_seconds + time.monotonic() - self.start

    def now(self, step: int, stop: bool) -> "Due":
        """The time, and what is due. Several processes agree on it, at every line of the log alone:
        between two of them the clock stands still and nothing is due."""
        if self.processes.world_size > 1 and step % self.config.train.log_every:
            return self.last._replace(save=False, sample=False)
        agreed = self.processes.broadcast((self.seconds, stop, self.save_due(), self.sample_due()))
        self.last = Due(agreed[0], *map(bool, agreed[1:]))
        return self.last

    def step(self, step: int, loss: Tensor, norm: Tensor, lr: float) -> None:
        self.pending.append((loss, norm))
        if step % self.config.train.log_every == 0:
            self.write(step, lr)

    def write(self, step: int, lr: float) -> None:
        """One line, of the means since the last; steps that were skipped are counted beside."""
        if not self.pending:
            return
        # The one moment at which the host waits for the device.
        values = self.processes.mean(
            torch.stack([torch.stack(pair) for pair in self.pending])
        ).tolist()
        # fp16 skips the steps whose gradients overflow by design: their loss alone is telling.
        exact = self.config.train.precision != "fp16"
        finite = [math.isfinite(a) and (math.isfinite(b) or not exact) for a, b in values]
        first = step - len(values)
        self.skipped = [first + i for i, ok in enumerate(finite) if not ok]
        self.all_finite = not self.skipped
        self.nonfinite_steps += len(self.skipped)
        good = [pair for pair, ok in zip(values, finite, strict=True) if ok]
        self.pending = []
        if self.skipped:
            self.say(
                f"{len(self.skipped)} of {len(values)} steps up to {step:,} gave no number, and "
                f"were skipped; their batches are in bad/"
            )
        if not good:
            return
        loss, norm = (sum(column) / len(good) for column in zip(*good, strict=True))
        self.loss = loss
        self.watch_jumps(step, loss)
        seconds, images = self.seconds, step * self.config.train.batch
        line = {"step": step, "images": images, "seconds": round(seconds, 3), "loss": loss,
                "lr": lr, "grad_norm": norm if math.isfinite(norm) else None}  # fmt: skip
        if self.skipped:
            line["skipped"] = len(self.skipped)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        fresh = (step - self.first_step) * self.config.train.batch
        rate = fresh / max(seconds - self.first_seconds, 1e-9)
        left = time_left(self.config, images, seconds, rate)
        progress = min(1.0, seconds / max(seconds + left, 1e-9))
        self.show(
            f"step {step:,}  loss {loss:.4f}  {rate:,.0f} images/s  {clock(left)} left", progress
        )

    def watch_jumps(self, step: int, loss: float) -> None:
        """Say so, once, when the loss is a number and yet far above what it was."""
        if loss > JUMP * self.lowest and not self.noted_jump:
            self.noted_jump = True
            self.say(
                f"the loss has jumped from {self.lowest:.3g} to {loss:.3g} by step {step:,}: if it "
                f"stays there, begin anew with a lower --train.lr or a longer --train.warmup"
            )
        self.lowest = min(self.lowest, loss)

    def look(self, step: int, losses: dict[str, dict[str, float]]) -> None:
        """One line of held-out.jsonl, and a note where images are learned by heart."""
        if not losses or not self.processes.is_main:
            return
        images = step * self.config.train.batch
        with self.looks.open("a") as file:
            file.write(json.dumps({"step": step, "images": images, **losses}) + "\n")
        if (note := overfitting_note(read_looks(self.looks))) and not self.noted_overfitting:
            self.noted_overfitting = True
            self.say(note)

    def skipped_now(self) -> list[int]:
        """The first of the steps that the last line skipped, told once; none once MAX_BAD batches
        were kept."""
        now, self.skipped = self.skipped[: min(3, MAX_BAD - self.kept)], []
        self.kept += len(now)
        return now

    def rolled_back(self, step: int, lr_scale: float) -> None:
        """The run has returned to its last checkpoint."""
        self.say(f"back to step {step:,}, and on with {lr_scale:g} of the learning rate")
        self.nonfinite_steps, self.rollbacks, self.pending = 0, self.rollbacks + 1, []
        if self.processes.is_main:
            self.file.close()
            self.file = opened_up_to(self.path, step)
            opened_up_to(self.looks, step).close()

    def say(self, text: str) -> None:
        if self.processes.is_main:
            self.bar.write(f"note: {text}", file=sys.stderr)

    def show(self, text: str, progress: float) -> None:
        if not self.processes.is_main:
            return
        if not self.bar.disable:
            self.bar.n = progress
            self.bar.set_description_str(text)
        elif time.monotonic() - self.last_line > PLAIN_SECONDS:
            self.last_line = time.monotonic()
            print(f"{progress:4.0%}  {text}", file=sys.stderr, flush=True)

    def save_due(self) -> bool:
        return self.seconds - self.last_saved >= 60 * self.config.train.save_minutes

    def saved(self) -> None:
        self.last_saved, self.nonfinite_steps, self.rollbacks = self.seconds, 0, 0

    def sample_due(self) -> bool:
        """Also a matter of what the last grids cost: a tenth of the time at most goes to them."""
        self.sampling_began = self.seconds
        pause = max(60 * self.config.train.sample_minutes, 10 * self.sampling_time)
        return self.sampling_began - self.last_sampled >= pause

    def sampled(self) -> None:
        self.last_sampled = self.seconds
        self.sampling_time = self.last_sampled - self.sampling_began

    def close(self) -> None:
        self.file.close()
        self.bar.close()
        self.lock.close()


def opened_up_to(path: Path, step: int) -> IO[str]:
    """metrics.jsonl, to go on after a step: what was logged beyond it will be logged again."""
    if path.exists():
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        with atomic_write(path) as beside:
            beside.write_text("".join(line for line in lines if logged_step(line) <= step))
    return path.open("a")


def logged_step(line: str) -> float:
    """The step of a line of metrics.jsonl; a line torn by a crash belongs to none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def budget_spent(config: Config, step: int, seconds: float) -> float:
    """The share of the budget that is spent: of steps, images or minutes, whichever was given."""
    if config.steps:
        return step / config.steps
    if config.images:
        return step * config.train.batch / config.images
    assert config.minutes
    return seconds / 60 / config.minutes


def time_left(config: Config, images: int, seconds: float, rate: float) -> float:
    """Seconds to the end of the budget at `rate` images a second."""
    if config.minutes:
        return max(0.0, 60 * config.minutes - seconds)
    total = config.images or (config.steps or 0) * config.train.batch
    return max(0, total - images) / rate


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C or SIGTERM asks to stop; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping: saving after this step …", file=sys.stderr, flush=True)

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
