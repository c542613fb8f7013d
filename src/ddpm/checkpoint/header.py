"""What checkpoints say of themselves: read without torch."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from safetensors import SafetensorError, safe_open

from ..config import Config, Count, DataInfo, UNetConfig, Whole, renamed, validated
from ..utils.errors import UserError

VERSION = 2
OLD_NAMES = {"images": "images_seen", "caution": "lr_scale"}  # of version 1
MAX_HEADER = 4_000_000  # bytes of a file's header: the names of a great many classes

Version = Annotated[int, Field(strict=True, ge=1)]
T = TypeVar("T")
Weights = Literal["ema", "as given"]  # averaged in training; or from elsewhere, with no such claim
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
FOREIGN = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")  # what other programs call theirs
PRETRAINED = ("mnist", "cifar10", "celeba64")


class NewerVersion(UserError):
    """The file is sound, and not for this version to read."""


@dataclass(frozen=True)
class Score:
    """How far samples of these weights were from the images that they learned, as they trained:
    the Fréchet distance of n of them. `features` are the network's, and the hash of its weights."""

    distance: Annotated[float, Field(allow_inf_nan=False)]
    n: Count
    features: str


@dataclass(frozen=True)
class Header:
    """What model.safetensors says of itself; best.safetensors has its score too. `guide`: what
    network the guide is that the file carries."""

    version: Version
    weights: Weights
    step: Whole
    images_seen: Whole
    data: DataInfo
    config: Config
    score: Score | None = None
    guide: UNetConfig | None = None


def parse_header(path: Path, metadata: Mapping[str, str], kind: type[T]) -> tuple[T, str | None]:
    """Return the header among a file's metadata, a dataclass of this kind, and the checksum.

    Raise UserError where it is damaged, of another program or kind, or from a newer version.
    """
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
    return validated(kind, renamed_header(header), f"{path} has a damaged header"), sha256


def header_of(path: Path, kind: type[T]) -> T:
    """Return what the file at `path` says of itself, a dataclass of this kind; its tensors are not
    read. Raise UserError as `parse_header` does, and where it is no whole safetensors file."""
    with opened(path) as file:
        metadata = file.metadata() or {}
    return parse_header(path, metadata, kind)[0]


@contextmanager
def opened(path: Path, framework: str = "np") -> Iterator[Any]:
    """Open a safetensors file. Raise UserError where it is not one, or its header is larger than
    any of ours."""
    try:
        check_header_length(path)
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file (truncated, or of another format): {error}"
        ) from None


def is_whole(path: Path) -> bool:
    """Return whether a file is a safetensors file of the length that its header tells.

    Quick, as no tensor is read: damage within them is found by `load_tensors`.
    """
    try:
        with opened(path):
            return True
    except UserError:
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


def renamed_header(header: Any) -> Any:
    """Return a header with today's names in place of those of earlier versions."""
    if not isinstance(header, dict):
        return header
    table = {OLD_NAMES.get(name, name): value for name, value in header.items()}
    return table | ({"config": renamed(table["config"])} if "config" in table else {})
