"""The networks that the demo can show, each loaded when it is first asked for, and images to look
at with them."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from torch import Tensor

from ..checkpoint import SHIPPED, Checkpoint, load
from ..data import load_images
from ..device import best_device
from ..errors import UserError
from ..generate import on_device, take_turns, watch
from ..images import to_uint8

KEPT = 4  # networks in memory at once
EXAMPLES = 50  # images to look at with each
EXAMPLE_STEPS = 20  # to make one of them, at most


class Shelf:
    """Names to checkpoints. A file that has changed is loaded anew, one that vanished is named.

    Raises UserError, as `load` does, for a name that is not there at the start.
    """

    def __init__(self, names: list[str], device: str | None = None):
        self.names = names or list(SHIPPED)
        self.device = device or best_device()
        self._load = lru_cache(maxsize=KEPT)(self._read)
        self._example = lru_cache(maxsize=KEPT * EXAMPLES)(self._look)
        self._one_at_a_time = Lock()
        for name in self.names:
            self._load(name, stamp(name))

    def __getitem__(self, name: str) -> Checkpoint:
        return self._load(name, self._stamp(name))

    def example(self, name: str, k: int) -> Tensor:
        """Image k, uint8 (C, H, W): a real digit where the network learned those, else one of its
        own. They are made one at a time, and each once, however many ask."""
        with self._one_at_a_time:
            return self._example(name, self._stamp(name), k % EXAMPLES)

    def _stamp(self, name: str) -> float:
        if name not in self.names:
            raise UserError(f"there is no model {name!r} here")
        if (written := stamp(name)) is None:
            raise UserError(f"{name} is no longer there: choose another model")
        return written

    def _read(self, name: str, stamp: float | None) -> Checkpoint:
        return on_device(load(name), self.device)

    def _look(self, name: str, stamp: float, k: int) -> Tensor:
        checkpoint = self._load(name, stamp)
        data, s = checkpoint.data, checkpoint.config.sample
        shape = (data.channels, data.height, data.width)
        if data.source in ("mnist", "mnist5k") and shape == (1, 28, 28):
            return load_images("mnist5k").images[k * 97]
        steps = min(s.steps, EXAMPLE_STEPS, checkpoint.diffusion.T)
        settings = replace(s, sampler="ddim", eta=0.0, steps=steps)
        y = take_turns(k + 1, (), data)
        *_, state = watch(checkpoint, k + 1, range(k, k + 1), 0, y, settings)
        return to_uint8(state.x).cpu()[0]


def stamp(name: str) -> float | None:
    """When its file was written; 0 for weights in the box, None where there is none."""
    if name in SHIPPED:
        return 0.0
    path = Path(name)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        return path.stat().st_mtime
    except OSError:
        return None
