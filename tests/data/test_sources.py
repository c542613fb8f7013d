"""Named sets, npz files, and sets on the hub."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import UserError, load_images
from ddpm.data.decode import fit
from ddpm.data.sources import is_downloaded
from pictures import noise_image


def test_an_npz_with_any_number_of_channels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.array([0, 1, 2, 1, 0]))
    data = load_images(tmp_path / "a.npz")
    assert data.images.shape == (5, 4, 12, 9)
    assert np.array_equal(data.images.permute(0, 2, 3, 1).numpy(), images)
    assert data.classes == ("0", "1", "2")
    assert load_images(tmp_path / "a.npz", size=(8,)).images.shape == (5, 4, 8, 8)
    np.savez(tmp_path / "gray.npz", images=images[..., 0])
    assert load_images(tmp_path / "gray.npz").images.shape == (5, 1, 12, 9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.full((4, 8, 8, 3), 7.5)}, r"uint8.*\(4, 8, 8, 3\)"),
        ({k: np.zeros((4, 8, 8), np.uint8) for k in "ab"}, "must hold images.*a, uint8 of shape"),
        ({"mu": np.zeros(8), "sigma": np.zeros((8, 8))}, "must hold images"),
        ({"arr_0": np.zeros((4, 1, 1), np.uint8)}, "8 pixels or more"),
        ({"arr_0": np.zeros((0, 8, 8), np.uint8)}, r"shape.*\(0, 8, 8\)"),
        ({"arr_0": np.zeros((4, 8, 8), np.uint8), "arr_1": np.zeros(3, int)}, "labels must"),
        ({"arr_0": np.zeros((4, 8, 8), np.uint8), "arr_1": np.full(4, 0.5)}, "labels must"),
        ({"arr_0": np.zeros((1, 8, 8), np.uint8), "y": [1], "classes": ["cat"]}, "`classes`"),
        ({"arr_0": np.zeros((1, 8, 8), np.uint8), "y": [0], "classes": [1.5]}, "`classes`"),
        ({"arr_0": np.zeros((9, 28, 28, 28), np.uint8)}, r"up to 4 channels.*\(9, 28, 28, 28\)"),
        ({"arr_0": np.zeros((9, 784), np.uint8)}, r"\(N, H, W\).*\(9, 784\)"),
        ({"arr_0": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_an_npz_that_will_not_do(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_images(tmp_path / "a.npz")


def test_labels_of_an_npz_are_the_values_that_occur(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    labels = np.array([2**63 + 5, 7, 7, 100_000], np.uint64)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    data = load_images(tmp_path / "a.npz")
    assert data.classes == ("7", "100000", str(2**63 + 5))
    assert data.labels.tolist() == [2, 0, 0, 1]


def test_damaged_files_of_a_named_set(tmp_path, shared):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (shared / "MNIST" / "raw").iterdir():
        (raw / file.name).write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="mnist is not whole in"):
        load_images("mnist", root=tmp_path)


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """Six faces in the layout that torchvision's CelebA has, the last two of its test split. Their
    tables are not those whose checksums it knows."""
    from torchvision.datasets import CelebA

    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 7)]
    for i, name in enumerate(names):
        noise_image(218, 178, seed=i).save(folder / "img_align_celeba" / name)
    for table, header, row in (
        ("list_eval_partition.txt", "", "0"),
        ("identity_CelebA.txt", "", "1"),
        ("list_bbox_celeba.txt", "6\nimage_id x_1 y_1 width height\n", "1 2 3 4"),
        ("list_landmarks_align_celeba.txt", "6\nlefteye_x lefteye_y\n", "1 2"),
        ("list_attr_celeba.txt", "6\nYoung Smiling\n", "1 -1"),
    ):
        rows = [f"{name} {row}" for name in names]
        if "partition" in table:
            rows[-2:] = [f"{name} 2" for name in names[-2:]]
        (folder / table).write_text(header + "\n".join(rows) + "\n")
    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)
    return tmp_path


def test_celeba_is_its_aligned_faces_about_their_middle(celeba):
    train, test = (load_images("celeba", root=celeba, split=split) for split in ("train", "test"))
    assert train.images.shape == (4, 3, 64, 64)
    assert test.images.shape == (2, 3, 64, 64)
    assert train.labels is None
    assert train.source == "celeba"
    face = Image.open(celeba / "celeba" / "img_align_celeba" / "000002.jpg")
    wanted = torch.from_numpy(fit(face.crop((0, 20, 178, 198)), (64, 64)).copy())
    inner = slice(4, -4)  # at the edge, a pixel may know what lies beyond
    assert torch.equal(train.images[1, :, inner, inner], wanted.permute(2, 0, 1)[:, inner, inner])
    assert load_images("celeba", (32,), root=celeba).images.shape == (4, 3, 32, 32)


def test_without_gdown_celeba_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"ddpm-from-scratch\[celeba\]"):
        load_images("celeba", root=tmp_path)


def test_a_download_is_decoded_once(tmp_path, monkeypatch):
    """By the process that downloaded it: the others then find it in the cache."""
    read = []

    class Digits:
        data, targets = torch.zeros(3, 28, 28, dtype=torch.uint8), torch.arange(3)

        def __init__(self, root, train, download):
            if not is_downloaded("mnist", Path(root)):
                (Path(root) / "MNIST" / "raw").mkdir(parents=True)
                (Path(root) / "MNIST" / "raw" / "images").touch()
            read.append(root)

    monkeypatch.setattr("torchvision.datasets.MNIST", Digits)
    assert not is_downloaded("mnist", tmp_path)
    assert len(load_images("mnist", root=tmp_path)) == 3
    assert is_downloaded("mnist", tmp_path)
    before = len(read)
    assert len(load_images("mnist", root=tmp_path)) == 3
    assert len(read) == before
