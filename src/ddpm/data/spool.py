"""Many images in little memory: written to a file as they come, and mapped from there."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Spool:
    """Images (C, H, W) one after another: in a file, which is mapped into memory in the end; or in
    memory, where there is no file or no room for it."""

    def __init__(self, path: Path | None, shape: tuple[int, int, int]):
        self.path, self.shape, self.n = path, shape, 0
        self.memory: list[bytes] = []
        try:
            self.file = path.open("w+b", buffering=0) if path else None
        except OSError:
            self.file = None

    def add(self, image: np.ndarray) -> None:
        """One more, uint8 (H, W) or (H, W, C)."""
        data = np.moveaxis(image.reshape(*image.shape[:2], -1), -1, 0).tobytes()
        self.n += 1
        if self.file is None:
            self.memory.append(data)
            return
        try:
            if self.file.write(data) < len(data):
                raise OSError("no room for the whole")
        except OSError:  # what is there comes back
            self.file.seek(0)
            self.memory = [self.file.read((self.n - 1) * len(data)), data]
            self.file.close()
            self.file = None

    def images(self) -> Tensor:
        """All of them, uint8 (N, C, H, W)."""
        shape = (self.n, *self.shape)
        if self.file is None or self.path is None:
            whole = bytearray(b"".join(self.memory))
            return torch.frombuffer(whole, dtype=torch.uint8).view(shape)
        self.file.close()
        return map_images(self.path, shape)


def map_images(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Images in a file, on disk until they are used. Raises ValueError where it is too short."""
    return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))
