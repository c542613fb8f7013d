"""Images of any source, decoded once."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from ..config import NAMED_SETS, ClassesFrom
from ..utils.errors import UserError, plain
from ..utils.images import background_colour
from .cache import cache_path, read_cache, write_cache
from .dataset import ImageDataset, Request, Source
from .folder import open_files
from .hub import is_hub, name_of, open_hub
from .names import HUB_PREFIX, require_data
from .npz import open_arrays
from .sources import open_mnist5k, open_torchvision

# Each returns the source that a request asks for, or None where that is of another kind.
SOURCES: tuple[Callable[[Request], Source | None], ...] = (
    open_mnist5k,
    open_torchvision,
    open_hub,
    open_arrays,
    open_files,
)

log = logging.getLogger(__name__)

DECODER = 10  # raised when decoding changes, so that images cached by older code are not used


def load_images(
    source: str | Path,
    size: tuple[int, ...] = (),
    root: str | Path = "data",
    split: str = "train",
    keep_size: bool = False,
    channels: int | None = None,
    background: str = "white",
    classes_from: ClassesFrom = "auto",
) -> ImageDataset:
    """Return the images of a named set, a folder, a zip, an array or a set on the hub.

    source     a name such as "cifar10" or "hf:OWNER/NAME", or a path
    size       (side,) or (height, width): images are cropped to its aspect about their middle and
               resized; () keeps images that have one size, unless it is large
    root       folder of the named sets
    split      "train" or "test": of a named set, one on the hub, or folders that are splits
    keep_size  keep images of one size even if it is large, and refuse images that differ
    channels   1 gray, 3 colour, 4 colour and how opaque; None: one where all images are gray, else
               three
    background  colour that transparent images are laid on, a name or #rrggbb
    classes_from  what names the classes of image files: "auto" is a table beside them, or else
               their folders; "folders"; or "names", the beginnings of the files' names

    Decoded images are cached. Raise UserError where images are missing or cannot be used, and
    where the cache cannot be written.
    """
    if len(size) > 2:
        raise UserError(f"size is one number, or height and width, not {size}")
    target = (size[0], size[-1]) if size else None
    if channels not in (None, 1, 3, 4):
        raise UserError(f"images have 1, 3 or 4 channels, not {channels}")
    background_colour(background)
    if isinstance(source, Path) and str(source) in NAMED_SETS:  # a path is none of their names
        source = source.absolute()
    if source in NAMED_SETS and os.path.isdir(source) and Path(root).resolve() != Path.cwd():
        log.info("%s is the set of that name; your folder is ./%s", source, source)
    source, root = os.path.expanduser(source), Path(os.path.expanduser(root))
    request = Request(
        source, target, root, split, keep_size, channels, background, classes_from
    )  # fmt: skip
    found = find_source(request)
    name, is_path = request.source, request.source not in NAMED_SETS and os.path.exists(source)
    where = os.path.abspath(source) if is_path else name
    key = DECODER, where, target or keep_size, split, channels, background, found.version
    path = cache_path(where, *key)
    if (cached := read_cache(path)) is not None:
        return cached
    return write_cache(path, found, title(request), channels, background)


def title(request: Request) -> str:
    """Return what a set is called: the whole of its name, but of a path the last part."""
    name = request.source
    if name in NAMED_SETS or is_hub(request):
        return plain(name)
    local, _ = name_of(request) if name.startswith(HUB_PREFIX) else (name, None)
    return plain(Path(os.path.abspath(local)).name)


def find_source(request: Request) -> Source:
    """Return what is to be read. Raise UserError where it is missing or is no data."""
    for open_source in SOURCES:
        if found := open_source(request):
            return found
    require_data(request.source)
    raise UserError(f"{request.source} is not a folder, a zip or an npz or npy file of images")
