"""`ddpm replay`: repeat a training step whose loss was not finite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from ..config import option
from .common import Device, device_for, require_files, say


@dataclass(frozen=True)
class ReplayOptions:
    """Repeat a training step whose loss was not finite, and say where that began."""

    batch: Annotated[Positional[str], option("BATCH")]
    """A file in a run's folder bad/."""
    device: Device = None


def replay(options: ReplayOptions) -> int:
    require_files(options.batch)

    from ..training.replay import replay

    say(replay(Path(options.batch), device_for(options.device)).text())
    return 0
