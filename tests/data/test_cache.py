"""The cache: images are decoded once, and again where the cache or the files have changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from ddpm import UserError, load_images
from ddpm.data import listing
from ddpm.data.cache import cache_path, write_cache
from ddpm.data.dataset import Source


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_change_of_the_files_is_seen(folder):
    before = load_images(folder)
    Image.new("RGB", (10, 12), "white").save(folder / "cat" / "new.png")
    assert len(load_images(folder)) == len(before) + 1


def test_a_damaged_cache_is_made_again(folder, cache):
    fingerprint = load_images(folder).fingerprint
    assert len(list(cache.iterdir())) == 2  # the images, and the rest
    for file in cache.iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[:100])
        assert load_images(folder).fingerprint == fingerprint
        assert file.read_bytes() == whole


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_images_stay_on_disk_until_they_are_used(folder, cache):
    first, again = load_images(folder), load_images(folder)
    assert torch.equal(first.images, again.images)
    assert Path("/proc/self/maps").read_text().count(".images") >= 2
    first.images.fill_(7)  # whoever writes to them writes to a copy
    assert torch.equal(load_images(folder).images, again.images)


def test_images_are_decoded_once(folder, cache, monkeypatch):
    first = load_images(folder)
    monkeypatch.setattr("ddpm.data.load.write_cache", lambda *a: pytest.fail("decoded again"))
    again = load_images(folder)
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.labels, first.labels)
    assert again.info == first.info


def test_the_description_of_a_cached_set(folder, cache):
    """Sets that were cached by earlier versions are read in the same format."""
    data = load_images(folder)
    (path,) = cache.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"].split(" ", 1)[1])
    assert about == [["cat", "dog"], "set", data.fingerprint, [], None, [6, 3, 12, 10]]
    assert path.with_suffix(".images").read_bytes() == data.images.numpy().tobytes()


def test_a_cache_that_cannot_be_written_is_an_error(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "file" / "cache"))
    for source in (folder, "mnist5k"):
        with pytest.raises(UserError, match=r"cannot be written to .* set DDPM_CACHE"):
            load_images(source)


def test_a_disk_that_fills_up_while_images_are_decoded(cache):
    def fill(out):
        out.write(b"some")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*DDPM_CACHE"):
        write_cache(cache / "a.safetensors", Source([], fill), "a")
    assert list(cache.iterdir()) == []  # the part that was written is deleted


def test_no_file_is_left_where_images_cannot_be_used(tmp_path, cache):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_text("x")
    with pytest.raises(UserError, match="no usable images"):
        load_images(tmp_path / "set")
    assert list(cache.iterdir()) == []


def test_pixels_that_are_more_than_were_described_are_made_again(folder, cache):
    data = load_images(folder)
    whole = data.images.clone()
    (pixels,) = cache.glob("*.images")
    with pixels.open("ab") as file:
        file.write(b"more")
    assert torch.equal(load_images(folder).images, whole)
    assert pixels.stat().st_size == whole.numel()


def test_pixels_are_never_there_before_they_are_what_is_described(folder, cache, monkeypatch):
    """Another run could take them for what they are to be."""

    def seen(path, decoded, channels, background):
        assert not list(cache.glob("[!.]*.images"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddpm.data.cache.fit_channels", seen)
    with pytest.raises(UserError, match="No space left"):
        load_images(folder)


def test_the_same_folder_is_decoded_once_however_it_is_named(folder, cache, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("set", "./set/", folder):
        assert load_images(name).source == "set"
    assert len(list(cache.glob("*.images"))) == 1
    monkeypatch.chdir(folder)
    assert load_images(".").source == "set"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_images("~/set").source == "set"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_what_could_not_be_read_once_is_read_again(folder, cache, monkeypatch, error):
    """A disk that failed, or memory that was short: the next time it may be there."""
    whole, real = len(load_images(folder)), listing.read_bytes
    shutil.rmtree(cache)

    def fail(path):
        if Path(path).name == "0.png":
            raise error
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(listing, "read_bytes", fail)
        fewer = load_images(folder)
        assert len(fewer) == whole - 2
        assert "2 of 6 images skipped" in fewer.notes[-1]
    assert len(load_images(folder)) == whole


@pytest.mark.parametrize("source", ["hf:OWNER/NAME:CONFIG", "hf:NAME", "photos of Zoë?*", "a.zip"])
def test_the_name_of_a_cached_set_is_a_name_on_any_system(source):
    name = cache_path(source, 1).name
    assert not set(name) & set('<>:"/\\|?*')
    assert name == cache_path(source, 1).name != cache_path(source, 2).name
