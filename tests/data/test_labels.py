"""Classes of images: folders, splits, tables and names."""

import json
import zipfile

import pytest
import torch

from ddpm import UserError, load_images, train
from ddpm.data import listing
from ddpm.data.decode import read_bytes
from ddpm.data.inspect import class_notes
from ddpm.data.labels import class_in_name, index_classes, label_images
from ddpm.data.splits import choose_split, split_of
from pictures import noise_image, png


@pytest.fixture
def make(tmp_path):
    """Writes images of those names below a folder, or in a zip."""

    def make(*names, texts=(), archive=False):
        files = {name: png(noise_image(12, 10, seed=i)) for i, name in enumerate(names)}
        files |= {name: text.encode() for name, text in dict(texts).items()}
        if archive:
            with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
                for name, data in files.items():
                    out.writestr(name, data)
            return tmp_path / "set.zip"
        for name, data in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "set"

    return make


def counts(data):
    return dict(zip(data.classes, data.labels.bincount().tolist(), strict=False))


# ---- splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    ("train", "other"),
    [("train", "test"), ("Train", "val"), ("training", "validation"), ("train2017", "val2017"),
     ("x/train", "x/valid"), ("images/TRAIN", "images/Test")],
)  # fmt: skip
def test_splits_are_no_classes(make, train, other, archive):
    names = [f"{train}/cat/1.png", f"{train}/dog/1.png", f"{train}/dog/2.png", f"{other}/cat/3.png"]
    data = load_images(make(*names, archive=archive))
    assert counts(data) == {"cat": 1, "dog": 2}
    (note,) = data.notes
    assert "is learned (3 images), and others are not" in note
    assert f"{other.split('/')[-1]}/ (1)" in note


def test_splits_without_classes(make):
    data = load_images(make("train/1.png", "train/2.png", "test/3.png", "cover.png"))
    assert len(data) == 2
    assert data.labels is None
    assert "test/ (1)" in data.notes[0]
    assert "beside them (1)" in data.notes[0]


def test_splits_below_classes(make):
    names = [f"{kind}/{part}/{i}.png" for kind in ("cup", "jar") for part in ("train", "test")
             for i in range(2)]  # fmt: skip
    data = load_images(make(*names))
    assert counts(data) == {"cup": 2, "jar": 2}


def test_a_split_by_name(make):
    path = make("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/b/2.png")
    assert counts(load_images(path, split="test")) == {"a": 1, "b": 2}
    with pytest.raises(UserError, match="no split test"):
        choose_split(["train/1.png", "val/1.png"], "test", "here")


def test_the_first_split_there_is(make):
    data = load_images(make("val/1.png", "test/1.png", "test/2.png"))
    assert len(data) == 1
    assert "val/ is learned (1 image)" in data.notes[0]


def test_trains_among_vehicles_are_a_class(make):
    assert counts(load_images(make("bus/1.png", "car/1.png", "train/1.png"))) == {
        "bus": 1, "car": 1, "train": 1,
    }  # fmt: skip
    assert split_of("trains") is split_of("trainee") is split_of("values") is None


# ---- tables ----------------------------------------------------------------------------------

EDM = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png",
       "00001/img00000003.png"]  # fmt: skip


@pytest.mark.parametrize("archive", [False, True])
def test_the_labels_of_edm(make, archive):
    table = json.dumps(
        {"labels": [[name, label] for name, label in zip(EDM, [6, 10, 6, 6], strict=True)]}
    )
    data = load_images(make(*EDM, texts={"dataset.json": table}, archive=archive))
    assert data.classes == ("6", "10")
    assert data.labels.tolist() == [0, 1, 0, 0]
    assert data.notes == ("classes are from dataset.json",)


def test_edm_without_labels_has_no_classes(make):
    data = load_images(make(*EDM, texts={"dataset.json": '{"labels": null}'}))
    assert data.labels is None
    assert data.notes == ("dataset.json says that the images have no classes",)


def test_one_hot_labels_and_images_without_one(make):
    table = json.dumps({"labels": [[EDM[0], [0, 1]], [EDM[1], [1, 0]], ["gone.png", [1, 0]]]})
    data = load_images(make(*EDM, texts={"dataset.json": table}))
    assert data.classes == ("0", "1")
    assert data.labels.tolist() == [1, 0, 2, 2]
    assert "1 of its rows names no image here" in data.notes
    assert "2 of 4 images have no class, and are learned so" in data.notes
    assert class_notes(data, False) == ["2 classes: 0 (1), 1 (1); without a class: 2"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"labels": [["a", {}]]}', '{"labels": 5}',
                                  '{"labels": [["00000/img00000000.png", [0.5, 0.5]]]}',
                                  "[" * 100_000])  # fmt: skip
def test_a_dataset_json_that_is_something_else_is_told(make, text):
    data = load_images(make("cat/1.png", "dog/1.png", texts={"dataset.json": text}))
    assert data.classes == ("cat", "dog")
    assert data.notes[0].startswith("dataset.json is not used for classes: ")


@pytest.mark.parametrize(
    "text",
    ["a.png,cat\nb.png,dog\nc.png,cat\n", "file,label\na.png,cat\nb.png,dog\nc.png,cat",
     "label;filename\ncat;a.png\ndog;b.png\ncat;c.png", "id,breed\na,cat\nb,dog\nc,cat",
     "\ufefffile_name\tx\tclass\r\nimages/a.png\t1\tcat\r\nimages\\b.png\t2\tdog\r\n./images/c.png\t3\tcat",
     "cat,a.png\ndog,b.png\ncat,c.png", ",image,target\n0,a.png,cat\n1,b.png,dog\n2,c.png,cat"],
)  # fmt: skip
@pytest.mark.parametrize("archive", [False, True])
def test_labels_csv(make, text, archive):
    names = ["images/a.png", "images/b.png", "images/c.png"]
    data = load_images(make(*names, texts={"labels.csv": text}, archive=archive))
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 0]
    assert data.notes == ("classes are from labels.csv",)


def test_numbers_in_labels_csv(make):
    table = "file,label\na.png,10.0\nb.png,2.0\nc.png,-1\nd.png,\n"
    data = load_images(make("a.png", "b.png", "c.png", "d.png", texts={"labels.csv": table}))
    assert data.classes == ("2", "10")
    assert data.labels.tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize(
    ("table", "words"),
    [("a.png,cat\na.png,dog", "has several classes"), ("x,y2,z\n1,2,3", "of its columns, x, y2, z"),
     ("file,label\nother.png,cat", "names no image here"), ("", "of its columns")],
)  # fmt: skip
def test_a_labels_csv_that_is_unclear_is_told(make, table, words):
    data = load_images(make("a.png", "b.png", texts={"labels.csv": table}))
    assert data.labels is None
    assert words in data.notes[0]


def test_folders_in_place_of_a_table(make):
    path = make("cat/1.png", "dog/1.png", "cover.png", texts={"labels.csv": "cover.png,x\n"})
    data = load_images(path, classes_from="folders")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 2, 1]


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("cat_001.png", "cat"), ("a/american_bulldog_12.jpg", "american_bulldog"),
     ("dog.0.jpg", "dog"), ("cat (1).png", "cat"), ("cat001.png", "cat"), ("frog.png", "frog"),
     ("n01440764_10026.JPEG", "n01440764"), ("0_000123.png", "0"), ("001.png", None),
     ("cat_001_flipped.png", "cat")],
)  # fmt: skip
def test_classes_in_names(name, wanted):
    assert class_in_name(name) == wanted


def test_classes_from_names(make):
    path = make("cat_001.png", "cat_002.png", "dog_001.png", "7.png")
    assert load_images(path).labels is None
    data = load_images(path, classes_from="names")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [2, 0, 0, 1]


# ---- classes ---------------------------------------------------------------------------------


def test_folders_that_only_number_the_images(make):
    path = make("00000/00000.png", "00000/00001.png", "01000/01000.png")
    data = load_images(path)
    assert data.labels is None
    assert "--classes-from folders" in data.notes[0]
    assert load_images(path, classes_from="folders").classes == ("00000", "01000")
    labels, *_ = label_images(["0001/1.png", "0001/2.png", "0002/1.png"], None)
    assert labels.tolist() == [0, 0, 1]


def test_names_that_differ_stay_apart():
    labels, classes = index_classes(["a\x1b", "a\\x1b", None, "a\x1b"])
    assert len(set(classes)) == 2
    assert all(name.isprintable() for name in classes)
    assert labels.tolist() == [0, 1, 2, 0]
    assert index_classes(["10", "2", "1"], by_number=True)[1] == ("1", "2", "10")


def test_training_names_the_classes_and_learns_images_without(make, tiny, tmp_path, caplog):
    from dataclasses import replace

    caplog.set_level("INFO")
    names = [f"{i:02}.png" for i in range(8)]
    table = "\n".join(f"{name},{'ab'[i % 2] if i < 6 else ''}" for i, name in enumerate(names))
    config = replace(tiny, data=str(make(*names, texts={"labels.csv": table})), size=(16,), steps=1)
    result = train(config, tmp_path / "run", device="cpu")
    assert "2 classes: a (3), b (3); without a class: 2" in caplog.text
    assert torch.isfinite(torch.tensor(result.loss))


def test_a_table_of_another_name_is_told(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(noise_image(16, 16, seed=i)))
    (tmp_path / "train.csv").write_text(
        "file,label\n" + "".join(f"{i},{i % 2}\n" for i in range(4))
    )
    told = "; ".join(load_images(tmp_path).notes)
    assert "not used: train.csv (call the one of classes labels.csv)" in told
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    assert load_images(tmp_path).classes == ("0", "1")


def test_captions_are_no_classes(make):
    names = [f"{i}.png" for i in range(24)]
    rows = "".join(f"{name},photo {i} of a cat\n" for i, name in enumerate(names))
    data = load_images(make(*names, texts={"metadata.csv": "file_name,text\n" + rows}))
    assert not data.classes
    assert any("text differs from file to file" in note for note in data.notes)


@pytest.mark.parametrize("head", ["", "file,x,y\n"])
def test_numbers_of_each_image_are_no_classes(make, head):
    """Coordinates, and captions in a table without a head."""
    names = [f"{i}.png" for i in range(24)]
    rows = "".join(f"{name},{'3,' * bool(head)}{i}\n" for i, name in enumerate(names))
    data = load_images(make(*names, texts={"labels.csv": head + rows}))
    assert not data.classes
    assert any("differs from file to file" in note for note in data.notes)


def test_every_image_may_be_of_a_class_of_its_own(make):
    names = [f"{i}.png" for i in range(24)]
    rows = "".join(f"{name},person {i}\n" for i, name in enumerate(names))
    assert len(load_images(make(*names, texts={"labels.csv": "file,label\n" + rows})).classes) == 24


def test_a_table_in_a_split_is_of_that_split(make):
    """The other has files of the same names."""
    names = [f"{split}/images/{i}.png" for split in ("train", "test") for i in range(3)]
    table = {"train/metadata.csv": "0.png,cat\n1.png,dog\n2.png,cat\n"}
    assert counts(load_images(make(*names, texts=table))) == {"cat": 2, "dog": 1}


def test_a_table_that_cannot_be_read_is_not_passed_over(make, monkeypatch):
    path, real = make("a.png", "b.png", texts={"labels.csv": "a.png,cat\nb.png,dog\n"}), read_bytes

    def fail(path):
        if str(path).endswith("labels.csv"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(listing, "read_bytes", fail)
    with pytest.raises(UserError, match=r"labels\.csv, which says what the classes are, cannot be"):
        load_images(path)


def test_names_in_a_table_may_be_written_otherwise(make):
    table = {"labels.csv": "file,label\nIMG_1.JPG,cat\nCafe\u0301.png,dog\n"}
    assert counts(load_images(make("img_1.jpg", "Caf\u00e9.png", texts=table))) == {
        "cat": 1,
        "dog": 1,
    }


def test_splits_of_other_names_are_asked_about(make):
    names = [f"{split}/{kind}/1.png" for split in ("seg_train", "seg_test") for kind in ("a", "b")]
    assert any("are they splits?" in note for note in load_images(make(*names)).notes)
