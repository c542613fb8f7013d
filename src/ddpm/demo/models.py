"""The networks that the demo shows, loaded when they are first asked for, and example images."""

import os
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor, nn

from ..checkpoint.checkpoint import Checkpoint, load
from ..checkpoint.header import PRETRAINED
from ..checkpoint.run_dir import RunDir
from ..config import DataInfo
from ..data.load import load_images
from ..data.sources import is_downloaded
from ..evaluation.classifiers import CifarNet, DigitNet, cifar_net, digit_net
from ..generation.generate import check_memory, cycle_labels, guide_of, on_device, trajectories
from ..utils.device import best_device, to_device
from ..utils.errors import UserError, printable
from ..utils.images import to_uint8
from .requests import Picture
from .uploads import border, read_upload

MAX_LOADED = 4  # networks in memory at once
NUM_EXAMPLES = 50  # example images of each network
MAX_EXAMPLE_STEPS = 20  # to generate one of them
BUNDLED = {  # their titles, and a sentence about each
    "mnist": ("Digits", "28 x 28, the digits of MNIST"),
    "cifar10": ("Objects", "32 x 32, the ten classes of CIFAR-10"),
    "celeba64": ("Faces", "64 x 64, faces of CelebA"),
}
CLASSIFIERS: dict[Any, Any] = {
    DigitNet: lru_cache(maxsize=1)(digit_net), CifarNet: lru_cache(maxsize=1)(cifar_net),
}  # fmt: skip
PUBLIC = ("mnist", "mnist5k", "fashion-mnist", "cifar10")  # data sets to show examples of


class ModelStore:
    """Checkpoints by name. A file that has changed is loaded anew.

    Raise UserError, as `load` does, for a name that cannot be loaded at the start, and when it is
    asked for a name that it does not have or a file that has been deleted.
    """

    def __init__(self, names: list[str], device: str | None = None):
        self.names = names or list(PRETRAINED)
        # Two threads at once on MPS end the process (pytorch/pytorch issue 197805).
        self.device = device or ("cpu" if best_device() == "mps" else best_device())
        # The caches are keyed by name and time of modification, which `_version` gives.
        self._load = lru_cache(maxsize=MAX_LOADED)(self._read)
        self._make_example = lru_cache(maxsize=MAX_LOADED * NUM_EXAMPLES)(self._read_example)
        self._training_images = lru_cache(maxsize=MAX_LOADED)(self._read_training_images)
        self._describe = lru_cache(maxsize=None)(self._read_description)
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

    def image(self, name: str, picture: Picture) -> tuple[Tensor, str]:
        """Return a picture as the network takes it, uint8 (C, H, W), and a note about it. Dark
        drawings on white are made light on dark for a network that knows only these."""
        checkpoint = self[name]
        if not picture.data:
            real = self.has_real_examples(name)
            note = "an image of its data set" if real else "an image that this network made"
            return self.example(name, picture.example), note
        data = checkpoint.data
        image, note = read_upload(picture.name, picture.data, data, checkpoint.config.background)
        if data.channels == 1 and border(image) > 127 and border(self.example(name, 0)) < 64:
            return 255 - image, f"{note}; inverted, as these are light on dark"
        return image, note

    def classifier(self, name: str) -> nn.Module | None:
        """Return the bundled classifier of the network's classes, where there is one."""
        kind = classifier_kind(self[name].data)
        return None if kind is None else to_device(CLASSIFIERS[kind](), self.device)

    def describe(self, name: str) -> dict[str, Any]:
        """Return what the page needs to know of a network."""
        return self._describe(name, self._version(name))

    def _read_description(self, name: str, version: float) -> dict[str, Any]:
        checkpoint = self._load(name, version)
        data = checkpoint.data
        title, about = BUNDLED.get(name, (Path(name).name, f"a network of {data.source}"))
        return {
            "name": name, "title": printable(title), "about": printable(about),
            "bundled": name in BUNDLED, "shape": data.shape, "classes": data.classes,
            "T": checkpoint.diffusion.T, "sample": asdict(checkpoint.config.sample),
            "has_classifier": classifier_kind(data) is not None,
            "guided": checkpoint.guide is not None,
        }  # fmt: skip

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
        data, root = checkpoint.data, Path(os.path.expanduser(checkpoint.config.root))
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
        guide = guide_of(checkpoint, settings)
        check_memory(checkpoint, k + 1, 1, settings, y is not None, guide)
        *_, state = trajectories(checkpoint, k + 1, range(k, k + 1), 0, y, settings)
        return to_uint8(state.x).cpu()[0]


def classifier_kind(data: DataInfo) -> type[nn.Module] | None:
    """Return which bundled classifier is of these images and classes, None where none is."""
    kinds = (k for k in CLASSIFIERS if (data.shape, data.classes) == (k.SHAPE, k.CLASSES))
    return next(kinds, None)


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
