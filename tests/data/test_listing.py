"""Which files are read: behind links, in zips of any tool, of formats that are told of."""

import os
import zipfile

import pytest
from PIL import Image

from ddpm import UserError, load_images
from ddpm.cli.main import main
from ddpm.data.formats import known
from ddpm.data.listing import MAX_VISITS, entry_name, list_files, list_folder
from pictures import noise_image, png


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image(12, 10, seed=seed).save(path)


def test_a_linked_class_is_learned(tmp_path):
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "single.png", 2)
    save(tmp_path / "set" / "cat" / "1.png", 1)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "2.png").symlink_to(tmp_path / "single.png")
    data = load_images(tmp_path / "set")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1]
    (line,) = list_files(tmp_path / "set").others
    assert line == "links: 1 to folders, 1 to files"
    before = data.fingerprint
    save(tmp_path / "elsewhere" / "1.png", 7)  # a change behind a link is seen
    assert load_images(tmp_path / "set").fingerprint != before


def test_links_that_lead_round_in_circles(tmp_path):
    save(tmp_path / "set" / "cat" / "1.png")
    save(tmp_path / "set" / "dog" / "1.png", 1)
    (tmp_path / "set" / "cat" / "up").symlink_to("..")
    (tmp_path / "set" / "dog" / "out").symlink_to(tmp_path)
    (tmp_path / "set" / "dog" / "self").symlink_to("self")
    (tmp_path / "set" / "dog" / "to-cat").symlink_to("../cat")
    listing = list_folder(tmp_path / "set")
    assert listing.names == ["cat/1.png", "dog/1.png", "dog/to-cat/1.png"]
    assert listing.links["to a folder that holds them, not followed"] == 3
    assert load_images(tmp_path / "set").classes == ("cat", "dog")


def test_a_maze_of_links_has_an_end(tmp_path):
    """Two links in each folder to the next make a thousand million ways to the last of thirty."""
    for i in range(30):
        (tmp_path / f"{i}").mkdir()
        for name in "ab":
            (tmp_path / f"{i}" / name).symlink_to(f"../{i + 1}")
    save(tmp_path / "30" / "1.png")
    listing = list_folder(tmp_path / "0")
    assert 0 < len(listing.names) <= MAX_VISITS
    assert f"more than {MAX_VISITS} links lead to it" in listing.faults.values()


def test_a_link_to_nothing_is_skipped_and_named(folder):
    (folder / "cat" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "cat" / "pipe.png")
    (note,) = load_images(folder).notes
    assert note.startswith("2 of 8 images skipped")
    assert "cat/gone.png (a link to nothing)" in note
    assert "cat/pipe.png (neither a file nor a folder)" in note


def test_a_folder_that_cannot_be_listed_is_named(folder):
    """Its path is longer than the system takes."""
    here = os.getcwd()
    try:
        os.chdir(folder / "cat")
        for _ in range(20):
            os.mkdir("x" * 250)
            os.chdir("x" * 250)
    finally:
        os.chdir(here)
    notes = load_images(folder).notes
    assert any("1 folder cannot be looked into: cat/xxx" in note for note in notes)


def test_other_formats_are_counted_with_what_to_do(folder):
    for i in range(20):
        (folder / "cat" / f"IMG_{i}.HEIC").write_bytes(b"heic")
    (folder / "dog" / "a.dng").write_bytes(b"raw")
    (folder / "dog" / "b.jxl").write_bytes(b"jxl")
    (folder / "dog" / "noending").write_bytes(b"?")
    notes = load_images(folder).notes
    if ".heic" not in known():
        assert "20 .heic files are left out: pip install pillow-heif" in notes
    if ".jxl" not in known():
        assert "1 .jxl file is left out: pip install pillow-jxl-plugin" in notes
    assert "1 .dng file is left out: develop them to PNG or JPEG" in notes
    others = list_files(folder).others
    assert "1 without an ending" in others[0]
    assert "1 .txt" in others[0]
    assert others[1] == "hidden, and left out: 1 (.hidden.png)"


def test_only_other_formats(tmp_path):
    (tmp_path / "a.cr2").write_bytes(b"raw")
    with pytest.raises(UserError, match=r"no images .* 1 .cr2 file is left out: develop them"):
        load_images(tmp_path)


def test_heic_is_read_where_its_plugin_is(tmp_path):
    pytest.importorskip("pillow_heif")
    known()
    noise_image(16, 16).save(tmp_path / "a.heic")
    assert load_images(tmp_path).images.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("WEBP", "webp"), ("TIFF", "tif"),
                                              ("PNG", "apng")])  # fmt: skip
def test_further_frames_are_told(tmp_path, kind, suffix):
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / f"a.{suffix}", kind, save_all=True, append_images=frames[1:],
                   **options)  # fmt: skip
    frames[1].save(tmp_path / "b.png")
    data = load_images(tmp_path)
    assert data.notes == (
        f"1 file of several frames or pages, of which the first is learned: a.{suffix}",
    )
    assert data.images[0, :, 0, 0].tolist() == [255, 0, 0]


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, png(noise_image(12, 10, seed=i)))
    return path


@pytest.mark.parametrize(
    "form",
    [
        "{}/{}.png",
        "{}\\{}.png",
        "/{}/{}.png",
        "./{}/{}.png",
        "C:\\data\\{}\\{}.png",
        "../{}/{}.png",
    ],
)
def test_names_in_zips_keep_their_folders(tmp_path, form):
    names = [form.format(label, i) for label in ("cat", "dog") for i in range(2)]
    data = load_images(zipped(tmp_path / "a.zip", names))
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.notes == ()


def test_what_macos_adds_to_a_zip_is_hidden(tmp_path):
    names = ["cat/1.png", "dog/1.png", "__MACOSX/cat/._1.png", "dog/._1.png", "dog/.DS_Store"]
    files = list_files(zipped(tmp_path / "a.zip", names))
    assert files.names == ["cat/1.png", "dog/1.png"]
    assert files.others[0].startswith("hidden, and left out: 3 (")


def test_names_in_zips_are_utf8_even_where_they_do_not_say_so(tmp_path):
    path = zipped(tmp_path / "a.zip", ["cafX/1.png", "cat/1.png"])
    data = path.read_bytes().replace(b"cafX", "é/".encode() + b"a")  # of the same length, no flag
    path.write_bytes(data)
    info = zipfile.ZipInfo("x")
    info.filename, info.flag_bits = "café/1.png".encode().decode("cp437"), 0
    assert entry_name(info) == "café/1.png"
    info.filename = "caf\xe9/1.png"  # of cp437 itself
    assert entry_name(info) == "café/1.png"
    assert "é" in load_images(path).classes


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_in_a_zip_is_told(tmp_path):
    path = zipped(tmp_path / "a.zip", ["cat/1.png", "cat/1.png", "dog/1.png"])
    data = load_images(path)
    assert len(data) == 2
    assert "1 name twice in" in data.notes[0]


def test_doctor_shows_all_at_once(known_cost, tmp_path, capsys):
    for split, n in (("train", 3), ("val", 1), ("test", 2)):
        for label in ("cat", "dog"):
            for i in range(n):
                save(tmp_path / "set" / split / label / f"{i}.png", i)
    train = tmp_path / "set" / "train"
    frames = [Image.new("RGB", (10, 12), colour) for colour in ("red", "blue")]
    frames[0].save(train / "cat" / "moves.gif", save_all=True, append_images=frames[1:])
    save(tmp_path / "birds" / "1.png", 9)
    (train / "bird").symlink_to(tmp_path / "birds")
    (train / "cat" / "up").symlink_to("../..")
    (train / "cat" / "a.cr2").write_bytes(b"raw")
    (train / "cat" / "broken.png").write_bytes(b"no")
    (train / "cat" / "notes.txt").write_text("x")
    (train / "dog" / ".hidden.png").write_bytes(b"")
    sheet = str(tmp_path / "sheet.png")
    assert main(["doctor", str(tmp_path / "set"), "--device", "cpu", "--sheet", sheet]) == 0
    text = capsys.readouterr().out
    for words in (
        "3 classes: bird (1), cat (4), dog (3)",
        "the folders are splits, of which train/ is learned (9 images), and others are not",
        "test/ (4)", "val/ (2)",
        "1 file of several frames or pages, of which the first is learned: train/cat/moves.gif",
        "other files: 1 .cr2, 1 .txt",
        "1 .cr2 file is left out: develop them",
        "links: 1 to folders, 1 to a folder that holds them, not followed",
        "hidden, and left out: 1 (train/dog/.hidden.png)",
        "1 cannot: not an image (train/cat/broken.png)",
        "sheet.png",
    ):  # fmt: skip
        assert words in text


def test_a_run_in_the_folder_that_it_learns_is_left_out(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    before = load_images(tmp_path).fingerprint
    save(tmp_path / "runs" / "a" / "samples" / "1.png")
    (tmp_path / "runs" / "a" / "state").mkdir()
    (tmp_path / "runs" / "a" / "config.toml").touch()
    data = load_images(tmp_path)
    assert (len(data), data.fingerprint, data.classes) == (3, before, ())
    assert list_files(tmp_path).notes[0] == "1 folder of training runs, left out: runs/a/"
    assert len(load_images(tmp_path / "runs" / "a")) == 1  # unless it is asked for
