"""Images of every kind, size and state, and batches that can be relied upon."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import Batches, ImageDataset, UserError, load_images, to_float, to_uint8
from ddpm.data.decode import decode, fit
from ddpm.data.folder import labels_of
from ddpm.data.spool import Spool


def png(image, **options):
    file = io.BytesIO()
    image.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def noise_image(h, w, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    shape = (h, w) if mode == "L" else (h, w, len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


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


def test_cifar10_from_a_zip(shared):
    data = load_images(shared / "cifar10-train.zip")
    assert data.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(data.labels).tolist() == [5000] * 10
    mean = data.images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.48216, 0.44653]), rtol=0, atol=1e-4)
    assert load_images(shared / "cifar10-train.zip").fingerprint == data.fingerprint


def test_a_folder_with_classes(folder):
    data = load_images(folder)
    assert data.images.shape == (6, 3, 12, 10)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [200, 200, 200, 50, 50, 50]
    assert data.notes == ()
    assert data.info.height == 12
    assert data.info.width == 10


def test_a_zip_of_the_same_is_the_same(folder, tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, "outer/" + str(file.relative_to(folder)))
        archive.writestr("__MACOSX/outer/cat/._0.png", b"")
    data = load_images(path)
    assert data.fingerprint == load_images(folder).fingerprint
    assert data.classes == ("cat", "dog")


def test_a_change_of_the_files_is_seen(folder):
    before = load_images(folder)
    Image.new("RGB", (10, 12), "white").save(folder / "cat" / "new.png")
    assert len(load_images(folder)) == len(before) + 1


def test_a_damaged_cache_is_made_again(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    fingerprint = load_images(folder).fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the images, and the rest
    for cached in (tmp_path / "cache").iterdir():
        whole = cached.read_bytes()
        cached.write_bytes(whole[:100])
        assert load_images(folder).fingerprint == fingerprint
        assert cached.read_bytes() == whole


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_images_stay_on_disk_until_they_are_used(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    first, again = load_images(folder), load_images(folder)
    assert torch.equal(first.images, again.images)
    assert Path("/proc/self/maps").read_text().count(".images") >= 2
    first.images.fill_(7)  # whoever writes to them writes to a copy
    assert torch.equal(load_images(folder).images, again.images)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it stands for a disk without room")
def test_a_disk_that_fills_up_while_images_are_decoded():
    images = torch.randint(0, 256, (5, 3, 200, 200), dtype=torch.uint8)
    spool = Spool(Path("/dev/full"), (3, 200, 200))
    for image in images:
        spool.add(image.permute(1, 2, 0).numpy())
    assert torch.equal(spool.images(), images)


def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_images(folder)) == 6
    assert "could not be cached" in capsys.readouterr().err


def test_bad_images_are_skipped_counted_and_named(folder):
    whole = png(noise_image(40, 40))
    (folder / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "text.jpg").write_text("hello")
    (folder / "cat" / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "cat" / "dot.png")
    data = load_images(folder)
    assert data.images.shape == (6, 3, 12, 10)  # nor do they count as another size
    (note,) = data.notes
    assert note.startswith("4 of 10 images skipped")
    for name in ("cut.png", "text.jpg", "empty.png", "dot.png (1x1 pixels are too few)"):
        assert name in note


@pytest.mark.parametrize("names", [(), ("a.txt", "b.csv"), ("bad.png",)])
def test_nothing_usable_is_an_error(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"there are no (usable )?images in"):
        load_images(tmp_path)


def test_sizes_that_differ_are_brought_to_one(tmp_path):
    noise_image(100, 300).save(tmp_path / "wide.png")
    noise_image(90, 20).save(tmp_path / "tall.png")
    data = load_images(tmp_path)
    assert data.images.shape == (2, 3, 64, 64)
    assert "64x64" in data.notes[0]
    assert load_images(tmp_path, size=(20, 44)).images.shape == (2, 3, 20, 44)
    assert load_images(tmp_path, size=(16,)).images.shape == (2, 3, 16, 16)


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


def test_the_rotation_tag_is_obeyed(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (0, 0, 20, 20))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    data = load_images(tmp_path)
    assert data.images.shape == (1, 3, 40, 20)
    assert data.images[0, :, :18].min() > 200
    assert data.images[0, :, 22:].max() < 50


def test_gray_among_colour_becomes_colour(tmp_path):
    noise_image(16, 16, "L").save(tmp_path / "a.png")
    assert load_images(tmp_path).images.shape == (1, 1, 16, 16)
    noise_image(16, 16).save(tmp_path / "b.png")
    data = load_images(tmp_path)
    assert data.images.shape == (2, 3, 16, 16)
    assert torch.equal(data.images[0, 0], data.images[0, 2])


def test_labels_come_from_the_folders_below_the_shared_one():
    assert labels_of(["a.png", "b.png"]) == (None, ())
    assert labels_of(["one/a.png", "one/b.png"]) == (None, ())
    assert labels_of(["a.png", "one/b.png"]) == (None, ())
    labels, classes = labels_of(["top/x/1.png", "top/y/deep/2.png", "top/x/3.png"])
    assert (labels.tolist(), classes) == ([0, 1, 0], ("x", "y"))


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
        ({"arr_0": np.zeros((4, 8, 8, 3))}, "uint8"),
        ({"other": np.zeros((4, 8, 8), np.uint8)}, "must hold images"),
        ({"arr_0": np.zeros((4, 3, 32, 32), np.uint8)}, "looks like"),
        ({"arr_0": np.zeros((4, 1, 1), np.uint8)}, "too small"),
        ({"arr_0": np.zeros((0, 8, 8), np.uint8)}, "must hold images"),
        ({"arr_0": np.zeros((4, 8, 8), np.uint8), "arr_1": np.zeros(3, int)}, "labels must"),
        ({"arr_0": np.zeros((4, 8, 8), np.uint8), "arr_1": np.ones(4)}, "labels must"),
        ({"arr_0": np.zeros((1, 8, 8), np.uint8), "y": [1], "classes": ["cat"]}, "`classes`"),
        ({"arr_0": np.zeros((1, 8, 8), np.uint8), "y": [0], "classes": [1.5]}, "`classes`"),
        ({"arr_0": np.zeros((4, 2, 16, 16), np.uint8)}, "looks like"),
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


def test_celeba_is_decoded_part_by_part_into_a_file(celeba, monkeypatch):
    added = []
    add = Spool.add
    monkeypatch.setattr(Spool, "add", lambda self, x: added.append(self.path) or add(self, x))
    load_images("celeba", (40,), root=celeba)
    assert len(added) == 4
    assert all(added)


def test_without_gdown_celeba_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"ddpm-from-scratch\[celeba\]"):
        load_images("celeba", root=tmp_path)


def test_images_outside_the_class_folders_are_told_of(folder):
    Image.new("RGB", (10, 12), "white").save(folder / "cover.png")
    data = load_images(folder)
    assert data.classes == ()
    assert data.notes == ("1 images lie outside the sub-folders: classes are not learned",)


def test_what_is_not_there_or_not_data(tmp_path):
    with pytest.raises(UserError, match="there is no data at"):
        load_images(tmp_path / "nothing")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="not a folder, a zip or an npz"):
        load_images(tmp_path / "a.txt")
    (tmp_path / "a.npz").write_text("x")
    with pytest.raises(UserError, match="cannot be read"):
        load_images(tmp_path / "a.npz")


def test_pixels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert to_float(levels).min() == -1
    assert to_float(levels).max() == 1
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-5.0, 5.0])).tolist() == [0, 255]


def numbered(n):
    """Images whose pixels are their number."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 8, 8)
    return ImageDataset(images, torch.arange(n), tuple(map(str, range(n))), "numbers")


def test_batches_go_through_every_image_once_an_epoch():
    batches = Batches(numbered(20), batch=6, seed=1)
    seen = torch.cat([batches.indices(k) for k in range(10)]).tolist()
    for epoch in range(3):
        assert sorted(seen[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert seen[:20] != seen[20:40]
    x0, y = batches(3)
    assert torch.equal(to_uint8(x0)[:, 0, 0, 0], y.to(torch.uint8))


def test_batch_k_depends_on_the_seed_and_k_alone():
    a, b = Batches(numbered(20), 6, seed=1), Batches(numbered(20), 6, seed=1)
    for k in (7, 2, 9):
        a.indices(k)
    assert torch.equal(a.indices(5), b.indices(5))
    assert not torch.equal(a.indices(5), Batches(numbered(20), 6, seed=2).indices(5))


def test_a_batch_may_be_larger_than_the_set():
    assert sorted(Batches(numbered(3), batch=9).indices(0).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_flips_mirror_about_half_and_only_left_to_right():
    ramp = torch.arange(8, dtype=torch.uint8).expand(200, 1, 8, 8)
    ramp = ramp + 10 * torch.arange(8, dtype=torch.uint8)[:, None]
    data = ImageDataset(ramp, None, (), "ramp")
    torch.manual_seed(0)
    x0, y = Batches(data, batch=200, flip=True)(0)
    images = to_uint8(x0)
    mirrored = (images == ramp.flip(-1)).flatten(1).all(1)
    kept = (images == ramp).flatten(1).all(1)
    assert y is None
    assert (mirrored | kept).all()
    assert 70 < mirrored.sum() < 130


# ---- the hub ---------------------------------------------------------------------------------


def parquet(folder, n=6, **columns):
    """A set as the hub has it: images in a column of a parquet file."""
    datasets = pytest.importorskip("datasets", reason="images from the hub need datasets")
    folder.mkdir()
    images = [noise_image(10, 12, seed=i) for i in range(n)]
    features = {"photo": datasets.Image()}
    if "kind" in columns:
        features["kind"] = datasets.ClassLabel(names=["cat", "dog/wolf"])
    data = datasets.Dataset.from_dict({"photo": images, **columns}, datasets.Features(features))
    data.to_parquet(str(folder / "train.parquet"))
    return f"hf:{folder}"


def test_a_set_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data = load_images(parquet(tmp_path / "animals", kind=[0, 1, 1, 0, 1, 0]))
    assert data.images.shape == (6, 3, 10, 12)
    assert data.classes == ("cat", "dog-wolf")
    assert data.labels.bincount().tolist() == [3, 3]
    plain = load_images(parquet(tmp_path / "plain"))
    assert plain.labels is None
    assert torch.equal(plain.images.float().sum((1, 2, 3)).sort().values,
                       data.images.float().sum((1, 2, 3)).sort().values)  # fmt: skip


def test_what_the_hub_does_not_have(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="images from the hub need datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="could not be had from the hub"):
        load_images(f"hf:{tmp_path}/nothing")
    datasets = sys.modules["datasets"]
    (tmp_path / "words").mkdir()
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(
        str(tmp_path / "words" / "train.parquet")
    )
    with pytest.raises(UserError, match="no column of images; it has text"):
        load_images(f"hf:{tmp_path}/words")


def test_a_set_that_was_downloaded_is_kept(tmp_path, monkeypatch):
    """By the process that downloaded it: the others then find it."""
    read = []

    def downloaded(name, size, root, split, keep):
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images").write_bytes(b"digits")
        read.append(name)
        return ImageDataset(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), None, (), name)

    monkeypatch.setattr("ddpm.data.load.read_named", downloaded)
    for _ in range(2):
        assert len(load_images("mnist", root=tmp_path)) == 3
    assert read == ["mnist"]
