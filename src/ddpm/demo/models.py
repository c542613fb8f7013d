"""The networks that the demo can show, each loaded when it is first asked for, and images to look
at with them."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from torch import Tensor

from ..checkpoint.checkpoint import PRETRAINED, Checkpoint, load
from ..data.load import load_images
from ..data.sources import is_downloaded
from ..generation.generate import cycle_labels, on_device, trajectories
from ..utils.device import best_device
from ..utils.errors import UserError
from ..utils.images import to_uint8

KEPT = 4  # networks in memory at once
EXAMPLES = 50  # images to look at with each
EXAMPLE_STEPS = 20  # to make one of them, at most
AT_HAND = ("mnist", "mnist5k", "fashion-mnist", "cifar10")  # what anyone may see, and soon read


class ModelStore:
    """Names to checkpoints. A file that has changed is loaded anew, one that vanished is named.

    Raises UserError, as `load` does, for a name that is not there at the start.
    """

    def __init__(self, names: list[str], device: str | None = None):
        self.names = names or list(PRETRAINED)
        self.device = device or best_device()
        self._load = lru_cache(maxsize=KEPT)(self._read)
        self._example = lru_cache(maxsize=KEPT * EXAMPLES)(self._look)
        self._images = lru_cache(maxsize=KEPT)(self._at_hand)
        self._one_at_a_time = Lock()
        for name in self.names:
            self._load(name, stamp(name))

    def __getitem__(self, name: str) -> Checkpoint:
        return self._load(name, self._stamp(name))

    def example(self, name: str, k: int) -> Tensor:
        """Image k, uint8 (C, H, W): a `real` one, else one of the network's own. They are made one
        at a time, and each once, however many ask."""
        with self._one_at_a_time:
            return self._example(name, self._stamp(name), k % EXAMPLES)

    def real(self, name: str) -> bool:
        """Whether examples are images that the network learned from."""
        with self._one_at_a_time:
            return self._images(name, self._stamp(name)) is not None

    def _stamp(self, name: str) -> float:
        if name not in self.names:
            raise UserError(f"there is no model {name!r} here")
        if (written := stamp(name)) is None:
            raise UserError(f"{name} is no longer there: choose another model")
        return written

    def _read(self, name: str, stamp: float | None) -> Checkpoint:
        return on_device(load(name), self.device)

    def _at_hand(self, name: str, stamp: float) -> Tensor | None:
        """The set that the network learned from: one of AT_HAND, if it is on this machine."""
        checkpoint = self._load(name, stamp)
        data, root = checkpoint.data, Path(checkpoint.config.root)
        source = "mnist5k" if data.source == "mnist" else data.source
        if source not in AT_HAND or not is_downloaded(source, root):
            return None
        try:
            images = load_images(source, root=root).images
        except UserError:
            return None
        return images if images.shape[1:] == (data.channels, data.height, data.width) else None

    def _look(self, name: str, stamp: float, k: int) -> Tensor:
        checkpoint, images = self._load(name, stamp), self._images(name, stamp)
        if images is not None:
            return images[97 * k % len(images)]
        data, s = checkpoint.data, checkpoint.config.sample
        steps = min(s.steps, EXAMPLE_STEPS, checkpoint.diffusion.T)
        settings = replace(s, sampler="ddim", eta=0.0, steps=steps)
        y = cycle_labels(k + 1, (), data)
        *_, state = trajectories(checkpoint, k + 1, range(k, k + 1), 0, y, settings)
        return to_uint8(state.x).cpu()[0]


def stamp(name: str) -> float | None:
    """When its file was written; 0 for bundled weights, None where there is none."""
    if name in PRETRAINED:
        return 0.0
    path = Path(name)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        return path.stat().st_mtime
    except OSError:
        return None
