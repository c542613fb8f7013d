"""Sets of the hub, as local folders of the same files: labels, columns, configurations, paths."""

import sys

import pytest

from ddpm import UserError, load_images
from pictures import noise_image

datasets = pytest.importorskip("datasets", reason="images from the hub need datasets")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def parquet(path, types, n=6, **columns):
    """A set as the hub has it: a parquet file with a column of images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"photo": [noise_image(10, 12, seed=i) for i in range(n)], **columns}
    features = datasets.Features({"photo": datasets.Image(), **types})
    datasets.Dataset.from_dict(columns, features).to_parquet(str(path))
    return f"hf:{path.parent}"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (datasets.ClassLabel(names=["cat", "dog"]), [0, 1, -1, None, 1, 0]),
        (datasets.Value("int64"), [2, 10, -1, None, 10, 2]),
        (datasets.Value("string"), ["cat", "dog", "", None, "dog", "cat"]),
    ],
)
def test_labels_of_the_hub(tmp_path, kind, values):
    data = load_images(parquet(tmp_path / "set" / "train.parquet", {"label": kind}, label=values))
    assert len(data.classes) == 2
    assert data.classes in (("cat", "dog"), ("2", "10"))
    assert data.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert "2 of 6 images have no class, and are learned so" in data.notes
    assert "labels are the column label" in data.notes


def test_a_set_without_any_label(tmp_path):
    kind = {"label": datasets.ClassLabel(names=["cat", "dog"])}
    data = load_images(parquet(tmp_path / "set" / "train.parquet", kind, label=[-1] * 6))
    assert data.labels is None


def test_columns_that_are_not_used_are_named(tmp_path):
    types = {"caption": datasets.Value("string"), "fine": datasets.ClassLabel(names=["a", "b"]),
             "coarse": datasets.ClassLabel(names=["c", "d"])}  # fmt: skip
    source = parquet(tmp_path / "set" / "train.parquet", types, caption=list("uvwxyz"),
                     fine=[0, 1] * 3, coarse=[0] * 6)  # fmt: skip
    data = load_images(source)
    assert data.classes == ("a", "b")
    assert "labels are the column fine" in data.notes
    assert "columns that are not used: caption, coarse" in data.notes


def test_names_that_differ_stay_apart(tmp_path):
    kind = {"label": datasets.ClassLabel(names=["dog/wolf", "dog-wolf"])}
    data = load_images(parquet(tmp_path / "set" / "train.parquet", kind, label=[0, 1] * 3))
    assert set(data.classes) == {"dog/wolf", "dog-wolf"}
    assert sorted(data.labels.bincount().tolist()) == [3, 3]


def test_a_configuration_is_chosen(tmp_path):
    for name, n in (("one", 3), ("two", 5)):
        parquet(tmp_path / "set" / name / "train.parquet", {}, n=n)
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: one/*.parquet\n"
        "- config_name: two\n  data_files: two/*.parquet\n---\n"
    )
    source = f"hf:{tmp_path / 'set'}"
    assert len(load_images(f"{source}:one")) == 3
    assert len(load_images(f"{source}:two")) == 5
    with pytest.raises(UserError, match=r"\['one', 'two'\].*:CONFIG"):
        load_images(source)
    with pytest.raises(UserError, match=r"three.*not found.*one.*two"):
        load_images(f"{source}:three")


def test_rows_name_no_files_of_this_machine(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    (tmp_path / "set").mkdir()
    noise_image(10, 12).save(tmp_path / "set" / "secret.png")
    whole = (tmp_path / "set" / "secret.png").read_bytes()
    rows = [{"bytes": None, "path": str(tmp_path / "set" / "secret.png")},
            {"bytes": None, "path": None}, None, {"bytes": whole, "path": "x.png"}]  # fmt: skip
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(rows, kind)})
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    (tmp_path / "set" / "secret.png").rename(tmp_path / "secret.png")
    rows[0]["path"] = str(tmp_path / "secret.png")
    table = pa.table({"image": pa.array(rows, kind)}).replace_schema_metadata(schema.metadata)
    write_table(table, tmp_path / "set" / "train.parquet")
    data = load_images(f"hf:{tmp_path / 'set'}")
    assert len(data) == 1
    (note,) = data.notes
    assert note.startswith("3 of 4 images skipped")
    assert "names a file, which is not read" in note
    assert "there is no image in this row" in note


def test_a_set_of_image_files_is_read(tmp_path):
    """Their paths are not of the rows, but of the files that were downloaded."""
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        noise_image(10, 12, seed=len(label)).save(tmp_path / "set" / label / "1.png")
    data = load_images(f"hf:{tmp_path / 'set'}")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1]


def test_what_the_hub_does_not_have(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot be read from the hub"):
        load_images(f"hf:{tmp_path}/nothing")
    (tmp_path / "words").mkdir()
    words = sys.modules["datasets"].Dataset.from_dict({"text": ["a"]})
    words.to_parquet(str(tmp_path / "words" / "train.parquet"))
    with pytest.raises(UserError, match="no column of images; it has text"):
        load_images(f"hf:{tmp_path}/words")


def test_a_folder_that_changes_is_read_again(tmp_path):
    name = parquet(tmp_path / "set" / "train.parquet", {})
    assert len(load_images(name)) == 6
    parquet(tmp_path / "set" / "train.parquet", {}, n=7)
    assert len(load_images(name)) == 7


def test_classes_keep_the_order_of_the_set(tmp_path):
    kind = {"label": datasets.ClassLabel(names=["shirt", "none of these", "boot"])}
    source = parquet(tmp_path / "set" / "train.parquet", kind, label=[0, 2, 2, 0, 0, 2])
    data = load_images(source)
    assert data.classes == ("shirt", "boot")
    assert data.labels.tolist() == [0, 1, 1, 0, 0, 1]
    assert data.source == "set"  # a folder, of which nobody needs to know where it lies
