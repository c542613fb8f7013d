"""Names that would do something to a terminal are shown as what they are, wherever they are."""

from dataclasses import asdict

import numpy as np
import pytest

from ddpm import ImageDataset, UserError
from ddpm.checkpoint.run_dir import RunDir
from ddpm.cli.main import main
from ddpm.config import DataInfo, validated
from ddpm.demo.runs import describe_run, list_runs
from ddpm.generation.settings import class_index
from ddpm.utils.files import append_line
from pictures import noise_image, png

RED = "\x1b[31m"
BAD = f"{RED}a\r\u202eb\u2066\x07"  # colour, back to the line's start, right to left, a bell
SHOWN = "\\x1b[31ma\\r\\u202eb\\u2066\\x07"


@pytest.fixture
def odd_set(tmp_path):
    """A folder of two classes, one with a bad name, with images that cannot be read."""
    folder = tmp_path / f"set{BAD}"
    try:
        for name, shade in ((BAD, 3), ("b", 200)):
            (folder / name).mkdir(parents=True)
            for i in range(12):
                data = png(noise_image(16, 16, seed=shade + i))
                (folder / name / f"{BAD}{i}.png").write_bytes(data)
        (folder / BAD / f"{BAD}.png").write_text("no image")
        (folder / BAD / f"{BAD}.jpg").write_bytes(png(noise_image(16, 16))[:60])
    except OSError:
        pytest.skip("this system has no such names")
    return folder


def clean(text):
    return all(c.isprintable() or c == "\n" for c in text)


def test_the_commands_print_no_control_characters(known_cost, odd_set, tmp_path, capsys):
    small = [
        "--unet.channels",
        "8",
        "--unet.mults",
        "1",
        "--unet.blocks",
        "1",
        "--unet.groups",
        "4",
    ]
    out = tmp_path / f"run{BAD}"
    words = ["train", "--data", str(odd_set), "--out", str(out), "--steps", "1", "--device", "cpu"]
    for argv in (
        ["doctor", str(odd_set), "--device", "cpu"],
        [*words, *small, "--train.batch", "4", "--sample.steps", "1"],
        ["generate", str(out), "--n", "1", "--label", BAD, "--out", str(tmp_path / f"{BAD}.png")],
    ):
        assert main(argv) == 0
        said = capsys.readouterr()
        assert SHOWN in said.out + said.err
        assert clean(said.out), said.out
        assert clean(said.err.replace("\r", "")), said.err
    for argv in (
        ["generate", str(out), "--label", f"{BAD}?"],
        ["doctor", f"{odd_set}{BAD}"],
        ["generate", str(tmp_path / f"{BAD}x.safetensors")],
    ):
        assert main(argv) == 1
        said = capsys.readouterr()
        assert SHOWN in said.err
        assert clean(said.out + said.err)


def test_classes_are_printable_from_the_first():
    data = ImageDataset.from_array(np.zeros((2, 8, 8), np.uint8), [0, 1], [BAD, "b"])
    assert data.classes == (SHOWN, "b") == data.info.classes
    info = validated(DataInfo, asdict(data.info) | {"classes": (BAD, "b"), "source": BAD})
    assert info.classes == (SHOWN, "b")
    assert info.source == SHOWN
    assert class_index(BAD, info.classes) == class_index(SHOWN, info.classes) == 0


def test_the_pages_of_the_demo(tmp_path):
    run = RunDir(tmp_path / BAD)
    run.path.mkdir()
    run.config.write_text("")
    append_line(run.metrics, {"step": 1, "images": 1, "seconds": 1.0, "loss": 1.0})
    assert clean(str(list_runs(tmp_path)))
    found = describe_run(tmp_path, SHOWN)
    assert found["name"] == SHOWN
    assert clean(str(found))
    with pytest.raises(UserError) as error:
        describe_run(tmp_path, f"no {BAD}")
    assert clean(str(error.value))


def test_what_pillow_finds_odd_is_not_shown(tmp_path, capfd):
    import logging
    import warnings

    from ddpm.cli.common import notes_shown

    with notes_shown():
        warnings.warn_explicit("Corrupt EXIF", UserWarning, "x.py", 1, "PIL.TiffImagePlugin")
        logging.getLogger("PIL.TiffImagePlugin").error("more samples than can be decoded")
        logging.getLogger("ddpm.x").info("%s", BAD)
    assert capfd.readouterr().err == f"note: {SHOWN}\n"
