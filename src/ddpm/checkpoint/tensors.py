"""The file format: safetensors with a header of ours, a checksum, and limits on what is read.

Loading such a file executes nothing. The header is a dataclass, as JSON under the key "ddpm".
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..config import renamed, validated
from ..utils.errors import UserError
from ..utils.files import atomic_write

VERSION = 2
OLD_NAMES = {"images": "images_seen", "caution": "lr_scale"}  # of version 1
MAX_HEADER = 4_000_000  # bytes of a file's header: the names of a great many classes

Version = Annotated[int, Field(strict=True, ge=1)]
T = TypeVar("T")


class NewerVersion(UserError):
    """The file is sound, and not for this version to read."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write a safetensors file with the header, a dataclass; whole or not at all.

    Raises OSError where the disk is full, UserError for a header that could not be read again.
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

    Raises UserError where it is damaged, of another program or kind, or from a newer version.
    """
    tensors, metadata = read_tensors(path)
    try:
        header = json.loads(metadata.get("ddpm", ""))
        version = header["version"]
        sha256 = header.pop("sha256", metadata.get("sha256"))  # it stood beside, before
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is a safetensors file, but not a checkpoint of ddpm") from None
    if isinstance(version, int) and version > VERSION:
        raise NewerVersion(
            f"{path} was written by a newer ddpm (format {version}; this one reads up to "
            f"{VERSION}): upgrade ddpm to use it"
        )
    if sha256 is not None and sha256 != digest(tensors):
        raise UserError(f"{path} is damaged: its contents are not those that were written")
    return tensors, validated(kind, renamed_header(header), f"{path} has a damaged header")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of any safetensors file. Raises UserError where it is
    not one, or its header is larger than any of ours."""
    try:
        check_header_length(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file (truncated, or of another format): {error}"
        ) from None


def is_whole(path: Path) -> bool:
    """Return whether a file is a safetensors file of the length that its header tells.

    Quick, as no tensor is read: damage within them is found by `load_tensors`.
    """
    try:
        check_header_length(path)
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError, ValueError):
        return False


def check_header_length(path: Path) -> None:
    if not path.is_file():  # opening a pipe would wait for whoever writes to it
        raise ValueError("it is not a file")
    if header_length(path) > MAX_HEADER:
        raise ValueError(f"its header would have more than {MAX_HEADER:,} bytes")


def header_length(path: Path) -> int:
    """Return what a safetensors file tells in its first eight bytes."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all tensors in the order of their names, wherever they lie in a
    file."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def renamed_header(header: Any) -> Any:
    """Return a header with today's names in place of those of earlier versions."""
    if not isinstance(header, dict):
        return header
    table = {OLD_NAMES.get(name, name): value for name, value in header.items()}
    return table | ({"config": renamed(table["config"])} if "config" in table else {})


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
