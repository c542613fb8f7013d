"""Every file that a command writes: its permissions, a disk that is full, and what it replaces."""

import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from ddpm.cli.main import main
from ddpm.utils.files import atomic_write
from pictures import folder_of, photos

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
TINY = [
    "--unet.channels", "8", "--unet.mults", "1", "2", "--unet.blocks", "1", "--unet.groups", "4",
    "--unet.patch", "1", "--train.batch", "16", "--sample.steps", "1", "--device", "cpu",
    "--held-out", "8", "--data", "images", "--steps", "2",
]  # fmt: skip
FEW = ["--n", "2", "--steps", "1", "--device", "cpu"]
WRITERS = {  # each kind of output
    "grid": ["generate", *FEW, "--out", "out/a.png"],
    "array": ["generate", *FEW, "--out", "out/a.npz"],
    "gif": ["generate", *FEW, "--out", "out/a.gif"],
    "webp": ["generate", *FEW, "--out", "out/a.webp"],
    "folder": ["generate", *FEW, "--out", "out/a/"],
    "score": ["evaluate", "a.npz", "--data", "a.npz", "--out", "out/a.json"],
    "nearest": ["evaluate", "a.npz", "--data", "a.npz", "--memorization", "out/a.png"],
    "sheet": ["doctor", "images", "--sheet", "out/a.png"],
    "diffusers": ["convert", "run", "out/folder"],
    "back": ["convert", "theirs", "out/a.safetensors"],
    "run": ["train", *TINY, "--out", "out/run"],
}


def written(folder):
    return {p: p.stat() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with all that the commands read."""
    folder = tmp_path_factory.mktemp("here")
    np.savez(folder / "a.npz", arr_0=photos(24).permute(0, 2, 3, 1).numpy())
    folder_of(photos(24), folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *TINY, "--out", "run"]) == 0
        assert main(["convert", "run", "theirs"]) == 0
    return folder


@pytest.fixture
def write(here, known_cost, scripted, monkeypatch, tmp_path):
    """Write one kind of output to a new folder out/, whose path and the exit code are returned."""

    def write(kind):
        monkeypatch.chdir(here)
        (here / "out").unlink(missing_ok=True)
        (tmp_path / "out").mkdir(exist_ok=True)
        (here / "out").symlink_to(tmp_path / "out")
        words = WRITERS[kind]
        features = ["--features", scripted] if words[0] == "evaluate" else []
        return tmp_path / "out", main([*words, *features])

    return write


@pytest.mark.parametrize("kind", WRITERS)
def test_files_have_the_permissions_of_any_new_file(kind, write):
    for umask in (0o022, 0o077, 0o002) if kind in ("grid", "back") else (0o027,):
        before = os.umask(umask)
        try:
            out, code = write(kind)
        finally:
            os.umask(before)
        assert code == 0
        files = written(out)
        assert files
        for path, about in files.items():
            if path.name != "lock":  # the lock's own library makes it
                assert about.st_mode & 0o777 == 0o666 & ~umask, path
        for path in files:
            path.unlink()


def test_what_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "a"
    path.touch(mode=0o600)
    path.chmod(0o604)
    with atomic_write(path) as beside:
        beside.unlink()
        beside.touch(mode=0o600)  # as a library makes a file of its own
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "run"])
def test_files_that_may_not_grow_leave_nothing(kind, write, capsys):
    """At several sizes, as a disk fills up: no empty file, no half of one, and a sentence."""
    resource = pytest.importorskip("resource")
    out, code = write(kind)
    assert code == 0
    sizes = [about.st_size for about in written(out).values()]
    shutil.rmtree(out)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for size in {0, 1, min(sizes) // 2, max(sizes) - 1}:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            _, code = write(kind)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert code == 1
            text = capsys.readouterr().err
            assert re.search(r"(out/|decoded images).*(File too large|os error 27)", text), text
            assert "unexpected error" not in text
            for path, about in written(out).items():  # of several files some may be whole
                assert kind in ("folder", "diffusers")
                assert about.st_size in sizes, path
            shutil.rmtree(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_overwriting_a_folder_deletes_only_what_ddpm_wrote(tmp_path):
    folder = tmp_path / "v1.5"
    words = ["generate", "--steps", "1", "--out", f"{folder}/"]
    folder.mkdir()
    assert main([*words, "--n", "6"]) == 0
    mine = Image.new("L", (28, 28))
    names = ("3/00003.png", "5/00007.png", "00005.png", "cat.png")
    for name in names:
        mine.save(folder / name)
    (folder / "notes.txt").write_text("mine")
    (folder / "4" / "00004.png").unlink()
    (folder / "4" / "00004.png").mkdir()
    kept = {name: (folder / name).read_bytes() for name in names}
    assert main([*words, "--n", "2", "--overwrite"]) == 0
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")} == {
        "0/00000.png", "1/00001.png", "4/00004.png", *names, "manifest.json", "notes.txt",
    }  # fmt: skip
    assert not (folder / "2").exists()
    assert kept == {name: (folder / name).read_bytes() for name in kept}


def test_a_folder_for_diffusers_can_be_written_after_a_failure(write):
    out, code = write("diffusers")
    assert code == 0
    files = sorted(written(out))
    assert write("diffusers")[1] == 1  # it is in use
    for path in files:
        path.unlink()
    assert write("diffusers")[1] == 0  # what is left of a failure is empty folders
    assert sorted(written(out)) == files
