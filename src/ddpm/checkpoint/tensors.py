"""The file format: safetensors with a header of ours, a checksum, and limits on what is read.

Loading such a file executes nothing. The header is a dataclass, as JSON under the key "ddpm".
"""

import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..utils.errors import UserError
from ..utils.files import atomic_write
from .header import MAX_HEADER, header_length, opened, parse_header

T = TypeVar("T")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write a safetensors file with the header, a dataclass; whole or not at all.

    Raise OSError where the disk is full, UserError for a header that could not be read again.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key alone: of several, safetensors writes the order at random.
    metadata = {"ddpm": json.dumps(asdict(header) | {"sha256": digest(contiguous)})}
    with atomic_write(path) as beside:
        with as_os_error(path):
            save_file(contiguous, beside, metadata=metadata)
        if header_length(beside) > MAX_HEADER:
            raise UserError(f"{len(header.data.classes):,} classes are too many for a checkpoint")


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raise OSError where safetensors cannot write: its text has the system's number for the
    fault."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from None


def load_tensors(path: Path, kind: type[T]) -> tuple[dict[str, Tensor], T]:
    """Return the tensors and the header of a file of ours, a dataclass of this kind.

    Raise UserError where it is damaged, of another program or kind, or from a newer version.
    """
    tensors, metadata = read_tensors(path)
    header, sha256 = parse_header(path, metadata, kind)
    if sha256 is not None and sha256 != digest(tensors):
        raise UserError(f"{path} is damaged: its contents are not those that were written")
    return tensors, header


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of any safetensors file. Raise UserError where it is
    not one, or its header is larger than any of ours."""
    with opened(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if sys.platform == "win32":  # which replaces no file that is mapped
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        return tensors, file.metadata() or {}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all tensors in the order of their names, wherever they lie in a
    file."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers in the tensors, of any device, are finite."""
    return all(bool(t.isfinite().all()) for t in tensors)


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError where what a file holds is NaN or infinite."""
    bad = [name for name, tensor in tensors.items() if not all_finite([tensor])]
    if bad:
        raise UserError(
            f"{path} holds no weights to use: {len(bad):,} of its {len(tensors):,} tensors are "
            f"NaN or infinite, {bad[0]} for one; take an earlier checkpoint"
        )


def require_real(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the same tensors; raise TypeError where they are not all of real numbers."""
    if not all(t.is_floating_point() for t in tensors.values()):
        raise TypeError("weights are real numbers")
    return tensors
