"""Scores of a run while it trains, and the best weights that it had."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint, load
from ..checkpoint.header import Header, Score, header_of
from ..checkpoint.run_dir import RunDir
from ..config import Config
from ..core.diffusion import Diffusion
from ..core.unet import UNet
from ..data.dataset import ImageDataset
from ..evaluation.classifiers import CifarNet
from ..evaluation.evaluate import seconds_per_evaluation
from ..evaluation.features import extract
from ..evaluation.metrics import frechet_distance
from ..evaluation.reference import load_reference, reference_stats
from ..evaluation.sampling import labels_as_in
from ..generation.generate import (
    cycle_labels,
    network_evaluations,
    on_device,
)
from ..utils.errors import UserError
from ..utils.files import append_line, last_step
from ..utils.images import flatten_alpha
from .log import MetricsLog, format_duration
from .preview import sample_images
from .state import TrainState

SAMPLES = 500  # enough to tell one step from another, and too few for a score to be quoted
BATCH = 64
MAX_SHARE = 0.4  # of a budget in minutes, for one score: half at most is kept for what comes last

logger = logging.getLogger(__name__)


class Scoring:
    """Measures the Fréchet distance of SAMPLES samples from the images that are learned, as
    `evaluate` does, and keeps the averaged weights of which it was least in best.safetensors.

    The samples are of the same noise and labels each time, made as `config.sample` says. The
    features are those of a bundled classifier where it takes such images, digit-net or cifar-net,
    and else of Inception. Raise UserError where these are not available, and where one score would
    take more than MAX_SHARE of a budget in minutes. `seconds` is what one is thought to take.

    Where a run is taken back to before its best, which was sound when it was scored, that is kept.
    """

    def __init__(
        self,
        run: RunDir,
        state: TrainState,
        diffusion: Diffusion,
        data: ImageDataset,
        held_out: Tensor,
    ):
        self.run, self.diffusion, config = run, diffusion, state.config
        self.device = diffusion.device
        images = as_compared(data, config)
        try:
            reference = load_reference(images, features=features_for(images), device=self.device)
        except UserError as error:
            raise UserError(f"--score-every: {error}") from None
        self.extractor = extractor = reference.extractor
        self.features = f"{extractor.name} {extractor.hash}"
        self.seconds = self.seconds_for(state, images.images[:BATCH])
        takes = f"one score takes about {format_duration(self.seconds)} here"
        if config.minutes and self.seconds > MAX_SHARE * 60 * config.minutes:
            raise UserError(
                f"--score-every: {takes}, more than {MAX_SHARE:.0%} of --minutes "
                f"{config.minutes:g}: give more of these or fewer --sample.steps, or train without "
                f"scores"
            )
        n = len(images) - len(held_out)
        logger.info(
            f"{takes}: the distance of {SAMPLES} samples from the {n:,} images that are learned, "
            f"in the features of {extractor.name}, to be compared with one another alone"
        )
        self.labels = labels_as_in(data, data.classes, SAMPLES)
        learned = reference_stats(reference).moments
        if len(held_out):
            learned -= extract(extractor, images.images[held_out], "held-out images").moments
        self.learned = learned.gaussian()

    def __call__(self, state: TrainState, log: MetricsLog, stop: Sequence[int]) -> None:
        """Append a line to scores.jsonl, and write the weights to best.safetensors where none had a
        better score. Ends early once `stop` is not empty."""
        distance = self.distance(self.network(state), log, stop)
        best = None if distance is None else self.best(state, log, stop)
        if distance is None or best is None:
            return
        self.run.require_held()
        score = Score(distance, SAMPLES, self.features)
        if distance < best[0]:  # before its line: a run that is killed between has lost neither
            state.save_average(self.run.best, score)
            told = f"the best so far, kept in {self.run.best}"
        else:
            told = f"the best is {best[0]:.4g}, of step {best[1]:,}"
        line = {"step": state.step, "images": state.images_seen, "seconds": round(state.seconds, 3)}
        append_line(self.run.scores, line | vars(score))
        logger.info(
            f"step {state.step:,}: distance {distance:.4g}, of {SAMPLES} samples in the features "
            f"of {self.extractor.name}; {told}"
        )
        log.scored(state.step, distance, SAMPLES)

    def network(self, state: TrainState) -> Checkpoint:
        net = cast(UNet, state.ema.model)
        return Checkpoint(
            net, self.diffusion, state.config, state.data, state.step, state.images_seen
        )

    def distance(self, network: Checkpoint, log: MetricsLog, stop: Sequence[int]) -> float | None:
        """Return the distance of a network's samples; None once told to stop."""
        config, data = network.config, network.data
        y = None if config.sample.guidance == 0 else cycle_labels(SAMPLES, self.labels, data)
        images = sample_images(
            network.net, self.diffusion, config.seed, data, SAMPLES, y, config.sample, BATCH, stop,
            lambda text: log.say(f"scoring: {text}"),
        )  # fmt: skip
        if images is None:
            return None
        found = extract(self.extractor, flatten_alpha(images, config.background), "samples")
        return frechet_distance(found.moments.gaussian(), self.learned)

    def best(
        self, state: TrainState, log: MetricsLog, stop: Sequence[int]
    ) -> tuple[float, int] | None:
        """Return the distance of the weights in best.safetensors, and their step; (inf, 0) where
        there are none. It is measured anew where their samples were made in another way, as before
        a resume with other --sample settings; None once told to stop."""
        path = self.run.best
        with suppress(UserError):  # it is missing, or damaged
            header = header_of(path, Header)
            score, same = header.score, header.config.sample == state.config.sample
            if score and same and (score.n, score.features) == (SAMPLES, self.features):
                return score.distance, header.step
            network = replace(on_device(load(path), self.device), config=state.config)
            distance = self.distance(network, log, stop)
            return None if distance is None else (distance, header.step)
        return math.inf, 0

    def seconds_for(self, state: TrainState, few: Tensor) -> float:
        """Estimate the time for a score, by timing a batch."""
        network = self.network(state)
        nfe = network_evaluations(state.config.sample, self.diffusion, network.conditional)
        self.extractor(few)
        began = time.perf_counter()
        self.extractor(few)
        each = (time.perf_counter() - began) / len(few)
        return SAMPLES * (each + nfe * seconds_per_evaluation(network, self.device, BATCH))


def as_compared(data: ImageDataset, config: Config) -> ImageDataset:
    """Return the images as samples are compared with them: over the background if transparent."""
    images = flatten_alpha(data.images, config.background)
    same = images is data.images
    return replace(data, images=images, notes=(), fingerprint=data.fingerprint if same else "")


def features_for(data: ImageDataset) -> str | None:
    """Return the features that images of this shape are compared in; None for those that `evaluate`
    takes. In colour of 32x32 that is not Inception, which takes long on a CPU."""
    return "cifar-net" if tuple(data.images.shape[1:]) == CifarNet.SHAPE else None


def was_scored(run: RunDir, step: int) -> bool:
    """Return whether the last line of scores.jsonl is of this step."""
    return last_step(run.scores) == step
