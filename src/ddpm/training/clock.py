"""When things are due in a run: a line of the log, a checkpoint, a preview, the end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config import Config
from ..utils.distributed import Processes
from .state import TrainState

GUIDE_AT = 0.08  # of the budget: the early weights that are kept for autoguidance
EARLY = 0.5  # of the budget, until which weights are early
PREVIEW_SHARE = 0.1  # of the time at most goes to previews
SCORE_SHARE = 0.25  # and to scores, which are asked for
# A terminal that is closed; or on Windows Ctrl-Break, and what the demo sends.
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", getattr(signal, "SIGBREAK", None))


class Due(NamedTuple):
    """What is due before a step. `progress` is the share of the budget that is spent."""

    seconds: float
    progress: float
    over: bool
    line: bool
    save: bool
    guide: bool
    preview: bool
    score: bool

    @property
    def writes(self) -> bool:
        """Whether weights may be written."""
        return self.over or self.save or self.guide or self.score

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self.progress >= 1


@dataclass
class Pauses:
    """What training stops for now and then: previews, scores. All times are in seconds.

    every  from the end of one to the beginning of the next; 0: never
    share  of the time that they may take
    last   when the last one ended, or training began
    took   the last one, or what the first is thought to take
    total  that all took
    """

    every: float
    share: float
    last: float
    took: float = 0.0
    total: float = 0.0

    def due(self, now: float) -> bool:
        return self.every > 0 and now - self.last >= max(self.every, self.took / self.share)


class Clock:
    """Tells how long a run has trained and what is due. It starts when it is made, or at `since`,
    a time of time.monotonic.

    A budget in minutes is all that is spent: training ends early by as long as the last preview
    will take, of so many passes of an image through the network, `preview_passes`, and the last
    score, `score_seconds`. Early weights are due once; where a run goes on that has none, as
    `has_guide` says, at once if it is early as yet.

    Several processes agree on it before every step: the main one tells the time and what is due,
    and each may ask all to stop.
    """

    def __init__(
        self,
        config: Config,
        processes: Processes,
        state: TrainState,
        since: float | None = None,
        preview_passes: int = 0,
        score_seconds: float = 0.0,
        has_guide: bool = False,
    ):
        self.config, self.processes, self.preview_passes = config, processes, preview_passes
        now = time.monotonic()
        self.start = (now if since is None else since) - state.seconds
        self.pace_seconds, self.pace_step, self.pace_scoring = now - self.start, state.step, 0.0
        self.timed_first, self.guide_at = False, GUIDE_AT
        self.progress = config.budget.progress(state.step, state.seconds)
        self.guide_overdue = state.step > 0 and not has_guide and GUIDE_AT <= self.progress < EARLY
        self.last_saved, train = self.pace_seconds, config.train
        self.previews = Pauses(60 * train.sample_minutes, PREVIEW_SHARE, self.last_saved)
        self.scores = Pauses(60 * train.score_minutes, SCORE_SHARE, self.last_saved, score_seconds)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def due(self, step: int, stop: bool) -> Due:
        """Return what is due before `step`; `stop`: whether this process was asked to stop."""
        line = step % self.config.train.log_every == 0
        now = self.seconds
        save = now - self.last_saved >= 60 * self.config.train.save_minutes
        before, budget = self.progress, self.config.budget
        first = step == self.pace_step + 1 and not self.timed_first
        if first:  # that one step may take minutes
            self.timed_first = True
            self.restart_pace(step, now)
        last = self.preview_seconds(step, now) + self.scores.took
        fits = not budget.minutes or now + self.scores.took + last <= 60 * budget.minutes
        preview, score = self.previews.due(now), fits and self.scores.due(now)
        told = (now, last, save, preview, score, self.guide_overdue)
        (seconds, last, *flags), stop = self.processes.broadcast(told, stop)
        save, preview, score, late = map(bool, flags)
        self.progress = max(before, budget.progress(step, seconds, last))
        if first and step == 1 and budget.minutes:
            self.guide_at += (1 - GUIDE_AT) * self.progress
        over = stop or self.progress >= 1
        if self.progress >= 1 and budget.minutes:  # what is left of it is the last preview's
            seconds = max(seconds, 60 * budget.minutes)
        guide, self.guide_overdue = late or before < self.guide_at <= self.progress, False
        line = line or save or score or over
        return Due(seconds, self.progress, over, line, save, guide, preview, score)

    def preview_seconds(self, step: int, now: float) -> float:
        """Return for how many seconds the last preview will be: as long as the one before it. The
        first is guessed from the steps so far but the first, whose images pass through the network
        once forward and once back, which takes twice as long."""
        if self.previews.took or step == self.pace_step:
            return self.previews.took
        images = (step - self.pace_step) * self.config.train.batch
        steps_took = now - self.pace_seconds - (self.scores.total - self.pace_scoring)
        return steps_took / images / 3 * self.preview_passes

    def restart_pace(self, step: int, now: float) -> None:
        """Tell the pace of the steps by those from here on."""
        self.pace_seconds, self.pace_step, self.pace_scoring = now, step, self.scores.total

    def saved(self) -> None:
        """Count the time to the next checkpoint from here."""
        self.last_saved = self.seconds

    def rolled_back(self, state: TrainState) -> None:
        """Go on from a state that was restored: what came after it is to be done again."""
        self.saved()
        self.restart_pace(state.step, self.last_saved)
        self.progress = self.config.budget.progress(state.step, state.seconds)

    @contextmanager
    def timed(self, pauses: Pauses) -> Iterator[None]:
        """Time a preview or a score, and count the time to the next one from its end."""
        began = self.seconds
        yield
        pauses.last = self.seconds
        pauses.took = pauses.last - began
        pauses.total += pauses.took


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Give a list that stays empty until Ctrl-C, SIGTERM, or SIGHUP of a terminal that is closed
    asks to stop; a second Ctrl-C stops at once, and so does a second SIGTERM, but for a launcher's.
    Outside of the main thread no signal is caught, and under nohup no SIGHUP."""
    asked: list[int] = []
    several = {HANGUP}  # of which the system and the shell each send one
    if "WORLD_SIZE" in os.environ:
        several.add(signal.SIGTERM)  # and its launcher, to all that it launched

    def ask(number: int, frame: Any) -> None:
        if asked and number not in several:
            raise KeyboardInterrupt
        asked.append(number)
        # A stream of Python's could be in the middle of a write, and raise here.
        with suppress(OSError):
            os.write(2, "\nstopping: saving after this step …\n".encode())

    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:
        numbers.append(HANGUP)
    try:
        before = {s: signal.signal(s, ask) for s in numbers}
    except ValueError:
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
