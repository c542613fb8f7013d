"""One image file: decoded, whatever its mode, cropped and resized."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from ..config import DataInfo
from ..utils.errors import UserError, first_line
from .container import ORIENTATION, Container, open_container, valid, webp_size
from .formats import advice, formats
from .limits import (
    DECODING,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SCANNED,
    MAX_SCANS,
    MAX_SLOW_PIXELS,
    MIN_SIDE,
)
from .values import NumberRange, Scale, choose_scale, format_scale, is_deep, value_range

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of images with so many channels
UPRIGHT = {  # what undoes an orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

# The most bytes that a pixel takes while it is decoded: as Pillow holds it and converts it, and in
# the decoders that hold all pixels.
MODE_BYTES = {"L": 1, "1": 2, "RGB": 4, "RGBA": 8, "P": 5, "LA": 9, "PA": 9}
OTHER_BYTES, DEEP_BYTES, TRANSPARENT_BYTES = 12, 24, 8
DECODER_BYTES = {"WEBP": 12, "AVIF": 16, "HEIF": 16, "JXL": 16}

T = TypeVar("T")


class ImageHeader(NamedTuple):
    """What a file says of its image: height and width once it is upright, whether it has colour,
    whether it has several frames or pages, and the least and the greatest of its numbers where they
    have no scale of their own."""

    height: int
    width: int
    colour: bool
    several: bool = False
    numbers: NumberRange | None = None


class OpenImage(NamedTuple):
    """An image file that is open, and not decoded yet.

    image        as it lies in the file
    orientation  from 1 to 8 as in Exif: from 5 on, width and height change places
    frames       how many images the file has
    memory       bytes that decoding the first of them takes at most
    """

    image: Image.Image
    orientation: int
    frames: int
    memory: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width once it is upright."""
        w, h = self.image.size
        return (w, h) if self.orientation >= 5 else (h, w)


def open_image(data: bytes, size: tuple[int, int] | None = None) -> OpenImage:
    """Open an image file of one of the formats, without decoding it.

    A JPEG that is larger than twice `size` (height, width) will be decoded at a half, a quarter or
    an eighth. Other formats are refused, whatever the file is called: for PostScript, Pillow would
    start a program. Raise ValueError for what would take too much time.
    """
    container = open_container(data)
    image = open_by_pillow(container)
    pixels = check_size(image.size)
    scans = container.data.count(b"\xff\xda") if container.format == "JPEG" else 0
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
        raise ValueError(f"{scans:,} passes over one image are too many")
    codecs = {tile[0] for tile in image.tile}
    if pixels > MAX_SLOW_PIXELS and codecs & set(Image.DECODERS):
        raise ValueError(f"{pixels:,} pixels are too many for this kind of {container.format}")
    memory = pixels * coefficient_bytes(image)
    if size and container.format == "JPEG":
        h, w = size[::-1] if container.orientation >= 5 else size
        image.draft(None, (2 * w, 2 * h))
    memory += decoding_memory(image) + 32 * prod(size or (0, 0))
    if container.data is not data:
        memory += len(container.data)
    frames = container.frames or getattr(image, "n_frames", 1)
    orientation = container.orientation
    if container.format == "AVIF":  # Pillow tells of irot and imir as if they were of Exif
        image.info.pop("xmp", None)
        orientation = valid(image.getexif().get(ORIENTATION, 1)) or 1
    return OpenImage(image, orientation, frames, memory)


def open_by_pillow(container: Container) -> ImageFile:
    """Return the image in a file, not decoded. Raise UnidentifiedImageError for other formats."""
    kind, file = container.format, io.BytesIO(container.data)
    if kind == "WEBP":  # whose decoder takes memory for all pixels when it is opened
        check_size(webp_size(container.data))
    if not kind:
        return Image.open(file, formats=formats())
    if kind not in formats():
        raise UnidentifiedImageError
    try:  # not by Image.open, which warns of large images and refuses larger ones
        return Image.OPEN[kind][0](file, "")
    except SyntaxError as error:
        raise ValueError(f"a {kind} of a kind that is not read ({first_line(error)})") from None


def check_size(size: tuple[int, int]) -> int:
    """Return the number of pixels. Raise ValueError for too few or too many."""
    w, h = size
    if w * h > MAX_PIXELS:
        raise ValueError(f"{w}x{h} pixels are too many")
    if min(w, h) < MIN_SIDE:
        raise ValueError(f"{w}x{h} pixels are too few")
    return w * h


def coefficient_bytes(image: ImageFile) -> int:
    """Return the bytes a pixel that a progressive JPEG takes until its last pass; 0 for others."""
    if "progressive" not in image.info:
        return 0
    sampling = [h * v for _, h, v, _ in image.layer]  # type: ignore[attr-defined]
    return -(-2 * sum(sampling) // max(sampling))


def decoding_memory(image: ImageFile) -> int:
    """Return the bytes that decoding an image takes at most, with copies in other modes."""
    each = DEEP_BYTES if image.mode[0] in "IF" else MODE_BYTES.get(image.mode, OTHER_BYTES)
    each += TRANSPARENT_BYTES * ("transparency" in image.info)
    memory = prod(image.size) * (each + DECODER_BYTES.get(image.format or "", 0))
    if image.tile and image.tile[0][0] == "libtiff":  # it unpacks a strip or a tile at a time
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = sum(tags.get(258, (1,))) if 258 in tags else 8
        w, h = tags.get(322, image.size[0]), tags.get(323, min(image.size[1], tags.get(278, 2**32)))
        memory += 2 * w * h * bits // 8
    return memory


def read_header(data: bytes, background: str = "white") -> ImageHeader:
    """Return what an image file says of its image, without decoding it but for its numbers."""
    file, numbers = open_image(data), None
    if is_deep(file.image) and not format_scale(file.image):
        with DECODING.reserve(file.memory):
            numbers = value_range(np.asarray(file.image, np.float32))
    gray = file.image.mode in ("1", "L", "LA", "F") or file.image.mode.startswith("I")
    if gray and file.image.has_transparency_data:
        gray = is_gray(background)
    return ImageHeader(*file.upright_size, not gray, file.frames > 1, numbers)


@contextmanager
def decoded(
    data: bytes, size: tuple[int, int] | None = None, background: str | None = "white"
) -> Iterator[Image.Image]:
    """Decode an image file as soon as the memory for it is free; free its pixels at the end.

    It is as the file has it, not upright yet, of mode "L" or "RGB" and over the background where it
    is transparent; without a background, of mode "RGBA" then. With a `size` (height, width) it may
    be smaller than in the file, and is twice as large at least.
    """
    file = open_image(data, size)
    with DECODING.reserve(file.memory):
        yield to_pixels(file.image, background)


def decode(
    data: bytes, size: tuple[int, int] | None = None, background: str | None = "white"
) -> Image.Image:
    """Decode an image file as `decoded` does, and return it upright."""
    file = open_image(data, size)
    with DECODING.reserve(file.memory):
        return turn(to_pixels(file.image, background), file.orientation)


def to_pixels(
    image: Image.Image, background: str | None, scale: Scale | None = None
) -> Image.Image:
    """Decode an open image to mode "L", "RGB" or "RGBA", as `decoded` says. More than 8 bits become
    8 by the scale of the format, else by the set's, else by one for this image."""
    image.load()
    if is_deep(image):
        known, numbers = format_scale(image), np.asarray(image, np.float32)
        scale = known or scale or choose_scale([value_range(numbers)])[0]
        return Image.fromarray(scale.to_bytes(numbers))
    gray = image.mode in ("1", "L", "LA")
    if not image.has_transparency_data:
        return to_mode(image, "L" if gray else "RGB")
    image = to_mode(image, "RGBA")
    if background is None:
        return image
    below = Image.new("L" if gray and is_gray(background) else "RGB", image.size, background)
    below.paste(image, mask=image)
    return below


def is_gray(colour: str) -> bool:
    """Return whether the colour of that name is gray, white or black."""
    return len(set(ImageColor.getrgb(colour)[:3])) == 1


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert the mode, without the copy that Pillow makes where there is nothing to convert."""
    return image if image.mode == mode else image.convert(mode)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image upright that has an orientation of Exif."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Crop to the aspect of `size` (height, width) about the middle, then resize, anti-aliased."""
    return np.asarray(crop(image, size))


def cropped_share(aspect: float, size: tuple[int, int]) -> float:
    """Return the share of an image of this width / height that is lost when it is cropped to the
    aspect of `size` (height, width)."""
    wanted = size[1] / size[0]
    return 1 - min(aspect / wanted, wanted / aspect)


def crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size[::-1]:
        return image
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)


def decode_to_fit(
    data: bytes,
    mode: str,
    size: tuple[int, int],
    background: str = "white",
    scale: Scale | None = None,
) -> np.ndarray:
    """Decode an image file, crop and resize it, and lay it over the background, unless the mode is
    "RGBA": uint8 (H, W) for "L", else (H, W, channels). What cannot be seen has the background's
    colour."""
    file = open_image(data, size)
    lying = size[::-1] if file.orientation >= 5 else size
    with DECODING.reserve(file.memory):
        image = to_pixels(file.image, None if mode == "RGBA" else background, scale)
        pixels = np.array(to_mode(turn(crop(image, lying), file.orientation), mode))
    if mode == "RGBA":
        pixels[pixels[..., 3] == 0, :3] = ImageColor.getrgb(background)[:3]
    return pixels


# ---- single images, for editing --------------------------------------------------------------


def read_image(path: Path, info: DataInfo, background: str = "white") -> Tensor:
    """Return an image file as the data of a network: uint8 (C, H, W), cropped and resized.

    Raise UserError where the file is missing or is not an image.
    """
    return read_file(path, lambda data: image_to_tensor(data, info, background))


def image_to_tensor(data: bytes, info: DataInfo, background: str = "white") -> Tensor:
    """Return an image file as the data of a network: uint8 (C, H, W), cropped and resized."""
    if info.channels not in MODES:
        raise UserError(
            f"an image has 1, 3 or 4 channels, and the data of this network {info.channels}"
        )
    size = (info.height, info.width)
    scale = Scale(*info.scale) if info.scale else None
    array = decode_to_fit(data, MODES[info.channels], size, background, scale).reshape(*size, -1)
    return torch.from_numpy(np.moveaxis(array, -1, 0).copy())


def read_mask(path: Path, info: DataInfo) -> Tensor:
    """Return an image file as a mask: bool (H, W), True where it is nearer to white than to black,
    which is what lies below transparent pixels."""
    size = (info.height, info.width)
    mask = read_file(path, lambda data: decode_to_fit(data, "L", size, background="black"))
    return torch.from_numpy(mask > 127)


def aspect(path: Path) -> float:
    """Return width / height of an image file. Raise UserError as `read_image` does."""
    height, width = read_file(path, lambda data: open_image(data).upright_size)
    return width / height


def read_file(path: Path, use: Callable[[bytes], T]) -> T:
    """Return what `use` makes of an image file. Raise UserError where it is missing or is not an
    image."""
    try:
        return use(read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"there is no image at {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image{advice(path.name)}") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{path} cannot be read as an image: {first_line(error)}") from None


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file. Raise ValueError for more than MAX_BYTES, or without an end."""
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has more than {MAX_BYTES:,} bytes")
    return data
