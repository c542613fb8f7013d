"""Image files whose metadata are broken, odd, or made to cost much: their pixels are read."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from ddpm.data.container import open_container
from ddpm.data.decode import decode, open_image, read_header
from pictures import noise_image, png

IMAGE = noise_image(20, 30)
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")


def exif(orientation=6, kind=3, order="<", entries=1):
    """Exif of one tag, as cameras write it."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + {1: "B3x", 2: "4s", 3: "H2x", 4: "I"}[kind], orientation)
    return head + struct.pack(order + "IHHHI", 8, entries, 0x0112, kind, 1) + value + bytes(4)


def xmp(orientation):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def chunk(kind, body, crc=None):
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_with(*chunks, last=False):
    """The chunks behind the head of a PNG, or behind its pixels."""
    whole = png(IMAGE)
    at = whole.index(b"IEND") - 4 if last else 33
    return whole[:at] + b"".join(chunks) + whole[at:]


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments):
    whole = png(IMAGE, format="JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def read_quietly(data):
    """The pixels, with every warning of a library an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = read_header(data)
        image = decode(data)
    assert (header.height, header.width) == image.size[::-1]
    return np.asarray(image)


BOMB = zlib.compress(bytes(200_000_000), 1)  # made as this is imported, so in a hurry
BROKEN = [
    b"", b"II", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"garbage that is no table",
    exif(1, entries=65_535), exif(0), exif(9), exif(65_535), exif(b"six\0", kind=2), exif()[:15],
    b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + b"\x12\x02\x07\0\xff\xff\0\0\x08\0\0\0" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("table", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("kind", FORMATS)
def test_broken_exif_is_no_reason_to_refuse_a_picture(kind, table, capfd):
    if kind == "PNG":
        data, clean = png_with(chunk(b"eXIf", table)), png(IMAGE)
    elif kind == "JPEG":
        data, clean = jpeg_with(segment(0xE1, b"Exif\0\0" + table[:60_000])), jpeg_with()
    elif kind == "TIFF":
        clean = png(IMAGE, format="TIFF")
        data = clean + table  # its own table comes first, and stays
    else:
        clean, sound = png(IMAGE, format=kind), Image.Exif()
        sound[0x010E] = "a description" + "." * len(table)
        data = png(IMAGE, format=kind, exif=sound)
        at = re.search(rb"II\*\0|MM\0\*", data).start()
        data = data[:at] + table + data[at + len(table) :]
    assert np.array_equal(read_quietly(data), read_quietly(clean))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"iCCP", b"profile\0\0no zlib"), chunk(b"iCCP", b"x" * 200),
        chunk(b"iCCP", b"profile\0\0" + BOMB), chunk(b"zTXt", b"a\0\0" + BOMB),
        chunk(b"tEXt", b"a\0b", crc=1), chunk(b"gAMA", b"", crc=2), chunk(b"acTL", b"\0"),
        chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)), chunk(b"pHYs", b"?"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmp tiff:Orientation='many'"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    ],
    ids=range(11),
)  # fmt: skip
def test_other_broken_parts_of_a_png(added):
    assert np.array_equal(read_quietly(png_with(added)), np.asarray(IMAGE))
    assert np.array_equal(read_quietly(png_with(added, last=True)), np.asarray(IMAGE))


@pytest.mark.parametrize(
    "added",
    [
        segment(0xE2, b"ICC_PROFILE\0\x09\x01broken"), segment(0xE2, b"MPF\0II*\0\xff\xff\0\0"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<?xpacket"),
        segment(0xED, b"Photoshop 3.0\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
        segment(0xFE, b"a") + b"what is no segment",
        segment(0xFE, b"a") + b"\xff" * 1000, segment(0xFE, b""),
    ],
    ids=range(8),
)  # fmt: skip
def test_other_broken_parts_of_a_jpeg(added):
    assert np.array_equal(read_quietly(jpeg_with(added)), read_quietly(jpeg_with()))


def test_what_follows_a_jpeg_is_not_looked_at():
    """A film, in which anything looks like a pass over the image."""
    film = b"\xff\xda\0\x02" * 1000
    assert np.array_equal(read_quietly(jpeg_with() + film), read_quietly(jpeg_with()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_wherever_it_is_told(orientation):
    method = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
        6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
    }.get(orientation)  # fmt: skip
    upright = IMAGE.transpose(Image.Transpose[method]) if method else IMAGE
    told = exif(orientation)
    hexed = b"\nexif\n      26\n" + (b"Exif\0\0" + told).hex().encode()
    files = [
        png_with(chunk(b"eXIf", told)), png_with(chunk(b"eXIf", told), last=True),
        png_with(chunk(b"eXIf", b"Exif\0\0" + told)),
        png_with(chunk(b"eXIf", exif(orientation, 4))),
        png_with(chunk(b"eXIf", exif(orientation, order=">"))),
        png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation))),
        png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(3)), chunk(b"eXIf", told)),
        png_with(chunk(b"tEXt", b"Raw profile type exif\0" + hexed)),
        png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed))),
        png(IMAGE, format="WEBP", lossless=True, exif=told),
        png(IMAGE, format="TIFF", tiffinfo={0x0112: orientation}),
    ]  # fmt: skip
    for i, file in enumerate(files):
        assert np.array_equal(read_quietly(file), np.asarray(upright)), i
    avif = [png(IMAGE, format="AVIF", quality=100, **e) for e in ({}, {"exif": told})]
    lying, turned = (Image.fromarray(read_quietly(file)) for file in avif)
    assert turned == (lying.transpose(Image.Transpose[method]) if method else lying)
    lying = read_quietly(jpeg_with())
    turned = read_quietly(jpeg_with(segment(0xE1, b"Exif\0\0" + told)))
    turn = Image.fromarray(lying)
    turn = turn.transpose(Image.Transpose[method]) if method else turn
    assert np.array_equal(turned, np.asarray(turn))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("number", [0x010E, 34665, 34853])
def test_a_tiff_is_read_past_tags_that_are_broken(number, compression, capfd):
    sound = {0x010E: "a description", 34665: 8, 34853: 8, 0x0112: 6}
    whole = bytearray(png(IMAGE, format="TIFF", tiffinfo=sound, compression=compression))
    tags = struct.unpack_from("<I", whole, 4)[0]
    for i in range(struct.unpack_from("<H", whole, tags)[0]):
        if struct.unpack_from("<H", whole, tags + 2 + 12 * i)[0] == number:
            struct.pack_into("<II", whole, tags + 6 + 12 * i, 2**31, 2**31)  # beyond any file
    upright = IMAGE.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(read_quietly(bytes(whole)), np.asarray(upright))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "AVIF", "TIFF", "MPO"])
def test_further_frames_are_counted_and_the_first_is_read(kind):
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "green", "blue")]
    data = png(frames[0], format=kind, save_all=True, append_images=frames[1:])
    assert open_image(data).frames == 3
    r, g, b = read_quietly(data)[8, 8]
    assert r > 200 > 50 > max(g, b)
    assert read_header(data).several
    assert not read_header(png(frames[0], format="JPEG" if kind == "MPO" else kind)).several


def test_a_clean_file_is_not_copied():
    for data in (png(IMAGE), jpeg_with(), png(IMAGE, format="WEBP"), png(IMAGE, format="TIFF")):
        assert open_container(data).data is data


def test_parts_without_end_are_refused():
    for data in (
        png_with(chunk(b"tEXt", b"") * 300_001),
        png(IMAGE, format="GIF")[:-1] + b"\x21\xfe" + b"\x01a" * 300_001,
    ):
        with pytest.raises(ValueError, match="parts of one file are too many"):
            open_container(data)


def test_a_tiff_whose_tags_all_name_the_same_megabytes():
    """Pillow would keep a copy for each of them."""
    rows = b"".join(struct.pack("<HHII", 40_000 + i, 7, 1_000_000, 8) for i in range(5000))
    file = io.BytesIO(b"II*\0" + struct.pack("<I", 1_000_008) + bytes(1_000_000))
    data = file.getvalue() + struct.pack("<H", 5000) + rows + bytes(4)
    with pytest.raises(ValueError, match="tags hold more than the file"):
        open_container(data)


def test_a_heic_that_calls_itself_a_file_of_images_is_no_avif():
    def begin(*brands):
        box = b"ftyp" + b"".join((brands[0], b"\0\0\0\0", *brands))
        return (len(box) + 4).to_bytes(4, "big") + box + b"\0" * 64

    assert open_container(begin(b"mif1", b"heic")).format == ""
    assert open_container(begin(b"mif1", b"miaf", b"avif")).format == "AVIF"
    assert open_container(begin(b"avif", b"mif1")).format == "AVIF"
