"""The networks that the demo can show, each loaded when it is first asked for."""

from functools import lru_cache
from pathlib import Path

from ..checkpoint import SHIPPED, Checkpoint, load
from ..device import best_device
from ..errors import UserError
from ..generate import on_device

KEPT = 4  # networks in memory at once


class Shelf:
    """Names to checkpoints. A file that has changed is loaded anew, one that vanished is named."""

    def __init__(self, names: list[str], device: str | None = None):
        self.names = names or list(SHIPPED)
        self.device = device or best_device()
        self._load = lru_cache(maxsize=KEPT)(self._read)

    def __getitem__(self, name: str) -> Checkpoint:
        if name not in self.names:
            raise UserError(f"there is no model {name!r} here")
        return self._load(name, stamp(name))

    def _read(self, name: str, stamp: float) -> Checkpoint:
        return on_device(load(name), self.device)


def stamp(name: str) -> float:
    """When its file was written; 0 for weights in the box."""
    if name in SHIPPED:
        return 0.0
    path = Path(name)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        return path.stat().st_mtime
    except OSError:
        raise UserError(f"{name} is no longer there: choose another model") from None
