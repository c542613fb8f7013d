"""A run's curves and grids, beside its files, in TensorBoard, Weights & Biases or MLflow."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image

from ..checkpoint.run_dir import RunDir
from ..config import Config
from ..utils.errors import UserError, first_line
from ..utils.files import read_lines

PROJECT = "ddpm"  # under which runs are found, where many are kept

logger = logging.getLogger(__name__)


def check_tracker(name: str | None) -> None:
    """Raise UserError where the package of a tracker is not installed."""
    if name and find_spec(name) is None:
        raise UserError(f"--track {name} needs a package: pip install {name}")


class Tracker:
    """Sends numbers and grids to what `config.track` names, through Accelerate; to nothing where
    that is None.

    It begins with the first numbers. What goes wrong then ends the run, and later only tracking.
    """

    def __init__(self, run: RunDir, config: Config):
        self.run, self.config, self.name = run, config, config.track
        self.tracker: Any = None

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Send numbers of a step; None is left out."""
        if self.name and self.tracker is None:
            try:
                self.tracker = begun(self.name, self.run, self.config)
            except Exception as error:
                raise UserError(f"--track {self.name} does not work: {first_line(error)}") from None
        numbers = {k: float(v) for k, v in values.items() if v is not None}
        self.attempt(lambda: self.tracker.log(numbers, step=step))

    def log_grids(self, step: int) -> None:
        """Send the grids of a step that are in the run's samples/."""
        for path in sorted(self.run.samples.glob(f"{step:07}-*.png")) if self.name else ():
            with Image.open(path) as file:
                image = np.asarray(file.convert("RGB"))[None]
            shown = {f"samples {path.stem.rpartition('-')[2]}": image}
            if self.name == "mlflow":
                self.attempt(lambda path=path: self.tracker.log_artifact(str(path), "samples"))
            else:
                shape = {"dataformats": "NHWC"} if self.name == "tensorboard" else {}
                self.attempt(
                    lambda shown=shown, shape=shape: self.tracker.log_images(shown, step, **shape)
                )

    def log_held_out(self, step: int) -> None:
        """Send the losses of a step in held-out.jsonl, by what they are of and their band."""
        lines = read_lines(self.run.held_out) if self.name else []
        line = lines[-1] if lines else {}
        if line.get("step") == step:
            sets = {k: v for k, v in line.items() if isinstance(v, dict)}
            values = {f"{k}/{band}": loss for k, v in sets.items() for band, loss in v.items()}
            self.log(values, step)

    def attempt(self, send: Any) -> None:
        """Do what sends something; where it fails, say so and send nothing any more."""
        try:
            if self.name and self.tracker is not None:
                send()
        except Exception as error:
            logger.warning("%s is sent nothing any more: %s", self.name, first_line(error))
            self.name = None

    def close(self) -> None:
        """End what has begun."""
        self.attempt(lambda: self.tracker.finish())


def begun(name: str, run: RunDir, config: Config) -> Any:
    """Return Accelerate's tracker of that name, told of the run and its settings."""
    title, settings = run.path.resolve().name, flat(asdict(config))
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind(name, run.path)  # in a folder of that name, within the run's
    elif name == "wandb":
        tracker = kind(PROJECT, name=title, dir=str(run.path))
    else:
        tracker = kind(PROJECT, run_name=title)
    if hasattr(tracker, "start"):  # since Accelerate 1.9; before, it has begun when it is made
        tracker.start()
    if name == "tensorboard":  # whose own form for settings makes another run of them
        tracker.log({"settings": "\n".join(f"    {k} = {v}" for k, v in settings.items())}, step=0)
    else:
        tracker.store_init_configuration(settings)
    return tracker


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as texts, each under its option's name."""
    values: dict[str, str] = {}
    for k, v in table.items():
        values |= flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": str(v)}
    return values
