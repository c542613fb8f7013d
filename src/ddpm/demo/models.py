"""The networks that the demo shows, loaded when they are first asked for, and example images."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from torch import Tensor

from ..checkpoint.checkpoint import PRETRAINED, Checkpoint, load
from ..checkpoint.run_dir import RunDir
from ..data.load import load_images
from ..data.sources import is_downloaded
from ..generation.generate import cycle_labels, on_device, trajectories
from ..utils.device import best_device
from ..utils.errors import UserError
from ..utils.images import to_uint8

MAX_LOADED = 4  # networks in memory at once
NUM_EXAMPLES = 50  # example images of each network
MAX_EXAMPLE_STEPS = 20  # to generate one of them
PUBLIC = ("mnist", "mnist5k", "fashion-mnist", "cifar10")  # data sets to show examples of


class ModelStore:
    """Checkpoints by name. A file that has changed is loaded anew.

    Raises UserError, as `load` does, for a name that cannot be loaded at the start, and when it is
    asked for a name that it does not have or a file that has been deleted.
    """

    def __init__(self, names: list[str], device: str | None = None):
        self.names = names or list(PRETRAINED)
        self.device = device or best_device()
        # The caches are keyed by name and time of modification, which `_version` gives.
        self._load = lru_cache(maxsize=MAX_LOADED)(self._read)
        self._make_example = lru_cache(maxsize=MAX_LOADED * NUM_EXAMPLES)(self._read_example)
        self._training_images = lru_cache(maxsize=MAX_LOADED)(self._read_training_images)
        self._examples_lock = Lock()
        for name in self.names:
            self._load(name, modified(name))

    def __getitem__(self, name: str) -> Checkpoint:
        return self._load(name, self._version(name))

    def example(self, name: str, k: int) -> Tensor:
        """Return example image k, modulo NUM_EXAMPLES: uint8 (C, H, W).

        It is a training image where the network `has_real_examples`, else one that the network
        generates. Each is made once, and one at a time, however many ask.
        """
        with self._examples_lock:
            return self._make_example(name, self._version(name), k % NUM_EXAMPLES)

    def has_real_examples(self, name: str) -> bool:
        """Return whether the examples are images that the network was trained on."""
        with self._examples_lock:
            return self._training_images(name, self._version(name)) is not None

    def _version(self, name: str) -> float:
        if name not in self.names:
            raise UserError(f"there is no model {name!r} here: choose another one")
        if (version := modified(name)) is None:
            raise UserError(f"{name} is no longer there: choose another model")
        return version

    def _read(self, name: str, version: float | None) -> Checkpoint:
        return on_device(load(name), self.device)

    def _read_training_images(self, name: str, version: float) -> Tensor | None:
        """Return the images that the network was trained on, uint8 (N, C, H, W), where they are a
        PUBLIC data set that is on this machine, and a user has named its folder."""
        checkpoint = self._load(name, version)
        data, root = checkpoint.data, Path(checkpoint.config.root)
        if not checkpoint.trusted:
            return None
        source = "mnist5k" if data.source == "mnist" else data.source
        if source not in PUBLIC or not is_downloaded(source, root):
            return None
        try:
            images = load_images(source, root=root).images
        except UserError:
            return None
        return images if images.shape[1:] == data.shape else None

    def _read_example(self, name: str, version: float, k: int) -> Tensor:
        checkpoint, images = self._load(name, version), self._training_images(name, version)
        if images is not None:
            return images[97 * k % len(images)]
        data, s = checkpoint.data, checkpoint.config.sample
        steps = min(s.steps, MAX_EXAMPLE_STEPS, checkpoint.diffusion.T)
        settings = replace(s, sampler="ddim", eta=0.0, steps=steps)
        y = cycle_labels(k + 1, (), data)
        *_, state = trajectories(checkpoint, k + 1, range(k, k + 1), 0, y, settings)
        return to_uint8(state.x).cpu()[0]


def modified(name: str) -> float | None:
    """Return when a checkpoint's file was last written: 0 for bundled weights, None if missing."""
    if name in PRETRAINED:
        return 0.0
    path = Path(name)
    path = RunDir(path).model if path.is_dir() else path
    try:
        return path.stat().st_mtime
    except OSError:
        return None
