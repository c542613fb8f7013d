"""What tells how a run is going, each when it is due: previews and scores."""

from collections.abc import Sequence

from torch import Tensor

from ..checkpoint.run_dir import RunDir
from ..config import Config
from ..core.diffusion import Diffusion
from ..data.dataset import ImageDataset
from .clock import Clock, Due
from .log import MetricsLog
from .preview import preview, preview_passes, was_previewed
from .score import Scoring, was_scored
from .state import TrainState
from .validation import Validation, held_out_count


class Monitor:
    """Makes previews, and scores where any were asked for. Of several processes the main one does.

    `preview_passes` and `score_seconds` are what the clock plans with.
    """

    def __init__(
        self,
        run: RunDir,
        state: TrainState,
        diffusion: Diffusion,
        data: ImageDataset,
        parts: tuple[Tensor, Tensor],
        main: bool,
    ):
        self.run, self.state, self.diffusion, self.main = run, state, diffusion, main
        _, held_out = parts
        self.validation = Validation(run, data, *parts, diffusion, state.config.seed)
        scored = main and state.config.train.score_minutes
        self.scoring = Scoring(run, state, diffusion, data, held_out) if scored else None
        self.preview_passes = preview_passes(state.config, data, self.validation)
        self.score_seconds = self.scoring.seconds if self.scoring else 0.0

    def run_due(self, due: Due, clock: Clock, log: MetricsLog, stop: Sequence[int]) -> None:
        """Make what is due, and have the clock time it. Ends early once `stop` is not empty."""
        if due.preview:
            with clock.timed(clock.previews):
                self.preview(log, stop)
        if due.score and not self.was_scored():
            with clock.timed(clock.scores):
                self.score(log, stop)

    def finish(self, log: MetricsLog, stop: Sequence[int]) -> None:
        """Make a preview, and score the weights that the run ends with, unless that is done."""
        self.preview(log, stop)
        if not self.was_scored():
            self.score(log, stop)

    def was_scored(self) -> bool:
        return was_scored(self.run, self.state.step)

    def preview(self, log: MetricsLog, stop: Sequence[int]) -> None:
        if self.main:
            show, after = log.say, log.previewed
            preview(self.run, self.state, self.diffusion, self.validation, stop, show, after)

    def score(self, log: MetricsLog, stop: Sequence[int]) -> None:
        if self.scoring and not stop:
            self.scoring(self.state, log, stop)


def is_complete(run: RunDir, step: int, config: Config, images: int) -> bool:
    """Return whether all is there that `Monitor.finish` writes at this step. A run may be killed
    before it has come to its end."""
    scored = not config.train.score_minutes or was_scored(run, step)
    return scored and was_previewed(run, step, held_out_count(images, config.held_out) > 0)
