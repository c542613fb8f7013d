"""One image file: modes, transparency, cropping."""

import numpy as np
from PIL import Image

from ddpm.data.decode import decode, fit
from pictures import noise_image, png


def test_cropping_keeps_the_aspect_and_the_middle():
    image = Image.new("L", (300, 100), 0)
    image.paste(255, (100, 0, 200, 100))  # the middle third is white
    assert fit(image, (50, 50)).min() > 235  # but for ringing at the cut
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    smooth = fit(stripes, (16, 16)).astype(float)
    assert abs(smooth.mean() - 127.5) < 3  # anti-aliased: no stripe survives
    assert smooth[2:-2, 2:-2].std() < 3


def test_every_mode_becomes_gray_or_colour():
    gray = noise_image(16, 16, "L")
    for image, mode in [
        (gray, "L"),
        (gray.convert("1"), "L"),
        (gray.convert("RGB"), "RGB"),
        (gray.convert("CMYK"), "RGB"),
        (gray.convert("RGB").convert("P"), "RGB"),
    ]:
        file_format = "TIFF" if image.mode == "CMYK" else "PNG"
        assert decode(png(image, format=file_format)).mode == mode
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(decode(png(deep))), np.asarray(gray))
    dark = Image.fromarray(np.full((16, 16), 200, np.uint16))
    assert (np.asarray(decode(png(dark))) == 1).all()  # 16 bits are 16 bits, however dark
    floats = Image.fromarray(np.asarray(gray).astype(np.float32) / 255)
    assert np.array_equal(np.asarray(decode(png(floats, format="TIFF"))), np.asarray(gray))


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert (np.asarray(decode(png(clear))) == 255).all()
    half = Image.new("LA", (16, 16), (0, 128))
    assert decode(png(half)).mode == "L"
    assert abs(np.asarray(decode(png(half))).mean() - 127) < 2
    assert decode(png(Image.new("L", (16, 16), 9), transparency=9)).mode == "L"
    palette = Image.new("P", (16, 16), 0)
    assert (np.asarray(decode(png(palette, transparency=0))) == 255).all()
