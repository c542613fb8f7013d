"""load_images: one function for images of every kind."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm import UserError, load_images
from pictures import noise_image, png


def test_the_digits_that_are_always_there():
    data = load_images("mnist5k")
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.images.max() == 255
    assert data.classes == tuple("0123456789")
    assert torch.bincount(data.labels).tolist() == [500] * 10
    assert load_images("mnist5k").fingerprint == data.fingerprint  # from the cache


def test_mnist_as_torchvision_keeps_it(shared):
    for split, n in (("train", 60_000), ("test", 10_000)):
        data = load_images("mnist", root=shared, split=split)
        assert data.images.shape == (n, 1, 28, 28)
        assert len(data.labels) == n


@pytest.mark.long  # 50,000 files; a small zip is read in test_folder
def test_cifar10_from_a_zip(shared):
    data = load_images(shared / "cifar10-train.zip")
    assert data.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(data.labels).tolist() == [5000] * 10
    mean = data.images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.48216, 0.44653]), rtol=0, atol=1e-4)
    assert load_images(shared / "cifar10-train.zip").fingerprint == data.fingerprint


def test_sizes_that_differ_are_brought_to_one(tmp_path):
    noise_image(100, 300).save(tmp_path / "wide.png")
    noise_image(90, 20).save(tmp_path / "tall.png")
    data = load_images(tmp_path)
    assert data.images.shape == (2, 3, 64, 64)
    assert "64x64" in data.notes[0]
    assert load_images(tmp_path, size=(20, 44)).images.shape == (2, 3, 20, 44)
    assert load_images(tmp_path, size=(16,)).images.shape == (2, 3, 16, 16)


def test_what_is_not_there_or_not_data(tmp_path):
    with pytest.raises(UserError, match="there is no data at"):
        load_images(tmp_path / "nothing")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="not a folder, a zip or an npz"):
        load_images(tmp_path / "a.txt")
    (tmp_path / "a.npz").write_text("x")
    with pytest.raises(UserError, match="cannot be read"):
        load_images(tmp_path / "a.npz")


def test_archives_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match="cannot be read as an npz"):
        load_images(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("images", "not an array")
    with pytest.raises(UserError, match="must hold images"):
        load_images(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.png", png(noise_image(16, 16)))
    whole = (tmp_path / "c.zip").read_bytes()
    at = whole.index(b"PK\x01\x02")
    (tmp_path / "c.zip").write_bytes(whole[:at] + b"XXXX" + whole[at + 4 :])
    with pytest.raises(UserError, match="cannot be read as a zip"):
        load_images(tmp_path / "c.zip")


def test_a_path_is_not_the_name_of_a_set(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k").mkdir()
    noise_image(20, 20).save(tmp_path / "mnist5k" / "1.png")
    assert len(load_images(Path("mnist5k"))) == 1
    assert not caplog.messages
    with caplog.at_level("INFO", logger="ddpm"):
        assert len(load_images("mnist5k")) == 5000
    assert "mnist5k is the set of that name; your folder is ./mnist5k" in caplog.messages
