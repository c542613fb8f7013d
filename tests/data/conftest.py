"""What the tests of data share."""

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Two classes of three 12x10 images, colours that tell them apart, and files of other kinds."""
    for label, shade in (("cat", 200), ("dog", 50)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            image = Image.new("RGB", (10, 12), (shade, i, 0))
            image.save(tmp_path / "set" / label / f"{i}.png")
    (tmp_path / "set" / "readme.txt").write_text("not an image")
    (tmp_path / "set" / ".hidden.png").write_text("not an image either")
    return tmp_path / "set"
