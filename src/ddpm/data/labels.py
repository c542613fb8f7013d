"""Classes of image files: of a table, of their names, or of their folders."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count, pairwise, product
from os.path import commonprefix, splitext
from typing import Any, TypeAlias
from unicodedata import normalize

import numpy as np

from ..config import ClassesFrom
from ..utils.errors import UserError, counted, first_line, plain
from .formats import SUFFIXES, ending
from .limits import MAX_TABLE_BYTES, MAX_TABLE_ROWS

Labels: TypeAlias = Mapping[str, str | None]
"""The class of each file by its name; None: it has none."""

TABLES = ("dataset.json", "labels.csv", "metadata.csv")  # beside the images or above them
FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_id", "path", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y", "breed")
VAGUE_COLUMNS = ("target", "y")  # of these, which may hold a number of each image
MAX_NAME = 200  # characters of a class
FEW_CAPTIONS = 20  # rows, of which each may well be of another class
MAX_LINE = 10_000  # characters of a table's row


def label_images(
    names: Sequence[str], labels: Labels | None, order: Sequence[str] = ()
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Return the labels of files, the names of the classes, and notes on them.

    Labels are those of `index_classes`. Without `labels`, the classes are folders: there are none
    if images lie outside of them, or if they only number the images.
    """
    notes = []
    values = top_folders(names) if labels is None else [labels[name] for name in names]
    missing = values.count(None)
    if labels is None and 0 < missing < len(names):
        notes.append(
            f"{counted(missing, 'image')} outside the sub-folders: classes are not learned"
        )
        return None, (), notes
    if labels is None and only_number(names, values):
        notes.append(
            f"the folders {min(names).split('/')[-2]} and so on only number the images, and are "
            f"no classes; --classes-from folders takes them for classes"
        )
        return None, (), notes
    indices, classes = index_classes(values, by_number=labels is not None, order=order)
    if missing and classes:
        notes.append(f"{missing:,} of {len(names):,} images have no class, and are learned so")
    elif labels is not None and missing < len(names) and not classes:
        notes.append("the images that have a class all have the same: classes are not learned")
    return indices, classes, notes


def index_classes(
    values: Sequence[str | None], by_number: bool = False, order: Sequence[str] = ()
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels, int64, and the names of the classes that they index, fit to be printed; the
    label of None is the number of classes. Fewer than two classes are none: (None, ()).

    Classes are in the `order` that there is, or else sorted by name, or `by_number` where all names
    are numbers. Names that differ stay apart, even where they are printed alike.
    """
    found = sorted({value for value in values if value is not None})
    if len(found) < 2:
        return None, ()
    if order:
        there = set(found)
        found = [name for name in dict.fromkeys(order) if name in there]
    elif by_number and all(re.fullmatch(r"-?\d{1,20}", value) for value in found):
        found.sort(key=int)
    classes: dict[str, None] = {}
    for value in found:
        name = plain(value, MAX_NAME)
        spare = (f"{name} ({i})" for i in count(2))
        classes[next(n for n in chain([name], spare) if n not in classes)] = None
    index: dict[str | None, int] = {name: i for i, name in enumerate(found)}
    index[None] = len(found)
    return np.array([index[value] for value in values], np.int64), tuple(classes)


def class_name(value: Any) -> str | None:
    """Return the name of a class; None for None, −1, "" and NaN, which mean that there is none.
    Raise ValueError for what is neither number nor text."""
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError("its labels are neither numbers nor names")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None or value != value else str(value)
    return None if text in ("", "-1") else text


def index_labels(
    labels: np.ndarray | None, n: int, classes: tuple[str, ...] = ()
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Return the labels of the n images of an array as indices, the names of the classes that they
    index, and notes.

    labels   integers or names of shape (n,) or (n, 1), or one-hot, (n, classes); −1 is no class
    classes  names of the integers, from 0 on; without them, integers and names name themselves

    Raise UserError for others.
    """
    if labels is None:
        return None, (), []
    values = label_names(labels, n)
    if not classes:
        indices, classes = index_classes([class_name(value) for value in values], by_number=True)
        notes = [] if classes else ["the labels are all the same: classes are not learned"]
        return indices, classes, notes
    array = np.array([-1 if value is None else value for value in values])
    if array.dtype.kind not in "iu":
        raise UserError("labels must be indices into `classes`, and these are names")
    if not -1 <= array.min() <= array.max() < len(classes):
        raise UserError(
            f"labels must be from 0 to {len(classes) - 1}, as `classes` names "
            f"{counted(len(classes), 'class', 'classes')}, or -1 for none; they are from "
            f"{array.min()} to {array.max()}"
        )
    return np.where(array < 0, len(classes), array), classes, []


def label_names(labels: np.ndarray, n: int) -> list[int | str | None]:
    """Return the labels of n images of an array as integers or names; None where there is none."""
    values = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    one_hot = values.ndim == 2 and values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all()
    if one_hot and (values.sum(1) == 1).all():
        values = values.argmax(1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    names = values.tolist() if values.shape == (n,) and values.dtype.kind in "biufUO" else [{}]
    names = [None if name is None or name != name else name for name in names]  # NaN: none
    names = [int(name) if isinstance(name, float) and name.is_integer() else name for name in names]
    if not all(name is None or isinstance(name, int | str) for name in names):
        raise UserError(
            f"labels must be integers or names, one for each of {counted(n, 'image')}, or one-hot; "
            f"these are {labels.dtype} of shape {labels.shape}: leave them out to learn without "
            f"classes"
        )
    return [int(name) if isinstance(name, bool) else name for name in names]


# ---- folders and names -----------------------------------------------------------------------


def top_folders(names: Sequence[str]) -> list[str | None]:
    """Return the folder of each file, right below the deepest one that holds them all; None for a
    file outside of such folders."""
    shared = shared_folder(names)
    rests = [name[len(shared) :] for name in names]
    return [rest.partition("/")[0] if "/" in rest else None for rest in rests]


def shared_folder(names: Sequence[str]) -> str:
    """Return the path of the deepest folder that holds all files, with "/" at its end; or ""."""
    same = commonprefix([min(names), max(names)])  # noqa: RUF071  (which is cut to folders)
    return same[: same.rfind("/") + 1]


def only_number(names: Sequence[str], folders: Sequence[str | None]) -> bool:
    """Return whether folders cut a numbered series in pieces, as 00000/00999.png, 01000/01000.png:
    the names of both are numbers, and those of the files rise over all folders."""
    if not all(folder and re.fullmatch(r"\d{4,}", folder) for folder in set(folders)):
        return False
    if len(set(folders)) < 2:
        return False
    numbers = [re.search(r"(\d{1,18})\.\w+$", name) for name in sorted(names)]
    return all(a and b and int(a[1]) < int(b[1]) for a, b in pairwise(numbers))


def class_in_name(name: str) -> str | None:
    """Return the class that a file's name begins with, before its first number: cat_001.png, cat
    (1).png and cat1.png are of the class cat. None where it begins with its only number."""
    stem = splitext(name.rpartition("/")[2])[0]
    found = re.match(r"(.+?)[\W_]+\d", stem) or re.match(r"(.*?)\d*$", stem, re.S)
    return found[1] or None if found else None


# ---- tables ----------------------------------------------------------------------------------


def read_labels(
    names: Sequence[str],
    read: Callable[[str], bytes],
    images: Sequence[str],
    chosen: Sequence[str],
    classes_from: ClassesFrom,
) -> tuple[Labels | None, list[str]]:
    """Return the classes of the `chosen` of all `images`, and notes on where they are from; None
    where folders are classes and no table says otherwise.

    The tables are looked for among all files, `names`.
    """
    if classes_from == "names":
        return {name: class_in_name(name) for name in chosen}, ["classes are from files' names"]
    if classes_from == "folders":
        return dict(zip(chosen, top_folders(chosen), strict=True)), []
    notes = []
    for table in find_tables(names, chosen):
        base = table[: table.rfind("/") + 1]
        try:
            data = read(table)
            if len(data) > MAX_TABLE_BYTES:
                raise ValueError("it is too large")
            rows = read_json(data) if table.lower().endswith(".json") else read_csv(data)
        except Exception as error:  # text that is damaged in any way
            if isinstance(error, OSError) and error.errno is not None:  # it may be read again
                raise UserError(
                    f"{table}, which says what the classes are, cannot be read "
                    f"({first_line(error)}): --classes-from folders does without it"
                ) from None
            notes.append(plain(f"{table} is not used for classes: {first_line(error)}", 300))
            continue
        if rows is None:
            notes.append(plain(f"{table} says that the images have no classes", 300))
            return dict.fromkeys(chosen), notes
        found = match_names(rows, images, base)
        if not found:
            first = next(iter(rows), "nothing")
            notes.append(plain(f"{table} names no image here (it begins with {first!r})", 300))
            continue
        notes.append(plain(f"classes are from {table}", 300))
        if len(found) < len(rows):
            n = len(rows) - len(found)
            notes.append(f"{n:,} of its rows {'names' if n == 1 else 'name'} no image here")
        return {name: found.get(name) for name in chosen}, notes
    unknown = [name for name in beside(names, chosen) if ending(name) in (".csv", ".tsv", ".jsonl")]
    if unknown:
        text = (
            f"tables that are not used: {', '.join(unknown)} (call the one of classes labels.csv)"
        )
        notes.append(plain(text, 300))
    return None, notes


def beside(names: Sequence[str], images: Sequence[str]) -> list[str]:
    """Return the files in the folder that holds all images and in those above it."""
    folder = shared_folder(images)
    return [name for name in names if folder.startswith(name[: name.rfind("/") + 1])]


def find_tables(names: Sequence[str], images: Sequence[str]) -> list[str]:
    """Return the tables in the folder that holds all images and in those above it, the nearest
    first."""
    found = []
    for name in beside(names, images):
        file = name.rpartition("/")[2].lower()
        if file in TABLES:
            found.append((-name.count("/"), TABLES.index(file), name))
    return [name for _, _, name in sorted(found)]


def read_json(data: bytes) -> dict[str, str | None] | None:
    """Return the labels of a dataset.json of StyleGAN or EDM, by file; None where it has none.

    It is {"labels": [[file, label], …]}, where a label is a number, a name or one-hot, or
    {"labels": null}. Raise an exception of any kind where it is something else.
    """
    if sum(map(data.count, (b"[", b"{", b","))) > 3 * MAX_TABLE_ROWS:
        raise ValueError("it is too large")
    table = json.loads(data)
    if not isinstance(table, dict) or "labels" not in table:
        raise ValueError('it has no "labels"')
    if table["labels"] is None:
        return None
    rows = dict(table["labels"]).items()
    return {str(file): class_name(from_one_hot(label)) for file, label in rows}


def from_one_hot(label: Any) -> Any:
    """Return the place of the 1 in a one-hot label; other labels as they are."""
    if not isinstance(label, list):
        return label
    if label.count(1) != 1 or label.count(0) != len(label) - 1:
        raise ValueError("its labels are vectors, and not one-hot")
    return label.index(1)


def read_csv(data: bytes) -> dict[str, str | None]:
    """Return the labels in a CSV file, by file.

    Its first row may name the columns, as FILE_COLUMNS and LABEL_COLUMNS do. Otherwise it has two,
    of files and of labels. Raise ValueError where that is unclear, or a file has several classes.
    """
    if data.count(b"\n") > MAX_TABLE_ROWS:
        raise ValueError("it is too large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = (line for line in io.StringIO(text) if line.strip() and len(line) <= MAX_LINE)
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    head = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    file, label = find_columns(head)
    headless = len(head) == 2 and file is label is None
    if headless:
        file = int(ending(head[1]) in SUFFIXES and ending(head[0]) not in SUFFIXES)
    if len(head) == 2:
        file = 1 - label if file is None and label is not None else file
        label = 1 - file if label is None and file is not None else label
    if file is None or label is None:
        raise ValueError(f"of its columns, {', '.join(head)}, none is called `file` or `label`")
    found: dict[str, str | None] = {}
    for row in csv.reader(chain([first] * headless, lines), delimiter=delimiter):
        if len(row) > max(file, label):
            name, text = row[file].strip(), row[label].strip()
            known = class_name(re.sub(r"^(-?\d+)\.0+$", r"\1", text))  # so pandas writes integers
            if found.setdefault(name, known) != known:
                raise ValueError(f"{name} has several classes in it")
    sure = not headless and head[label].lower() in {*LABEL_COLUMNS} - {*VAGUE_COLUMNS}
    if not sure and len(found) > FEW_CAPTIONS and len(set(found.values())) > 0.9 * len(found):
        which = f"its column {label + 1}" if headless else head[label]
        raise ValueError(
            f"{which} differs from file to file: call the column label if it is of classes"
        )
    return found


def find_columns(head: Sequence[str]) -> tuple[int | None, int | None]:
    """Return which columns are called as those of files and of labels are."""
    lower = [cell.lower() for cell in head]
    file, label = (
        next((lower.index(name) for name in known if name in lower), None)
        for known in (FILE_COLUMNS, LABEL_COLUMNS)
    )
    return file, label


SPELLINGS: tuple[Callable[[str], str], ...] = (  # of a file's path in a table
    lambda path: path,
    lambda path: splitext(path)[0],
    lambda path: path.rpartition("/")[2],
    lambda path: splitext(path.rpartition("/")[2])[0],
)


def folded(name: str) -> str:
    return normalize("NFC", name).casefold()


FORMS: tuple[Callable[[str], str], ...] = (str, folded)


def match_names(rows: Labels, images: Sequence[str], base: str) -> dict[str, str | None]:
    """Return the labels in a table's rows by the names of images: their paths from the table's
    folder, `base`, or the last part of these, each with its ending or without, and all of that
    again whatever the case and the form of letters, whichever fits most. What could be several
    images is none."""
    plain_rows = {key.replace("\\", "/").removeprefix("./"): label for key, label in rows.items()}
    below = [image for image in images if image.startswith(base)]
    best: dict[str, str | None] = {}
    for form, spelling in product(FORMS, SPELLINGS):
        index: dict[str, str | None] = {}
        for image in below:
            key = form(spelling(image.removeprefix(base)))
            index[key] = None if key in index else image
        pairs = ((index.get(form(key)), label) for key, label in plain_rows.items())
        best = max(best, {image: label for image, label in pairs if image is not None}, key=len)
        if len(best) == len(plain_rows):
            break
    return best
