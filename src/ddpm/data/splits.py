"""Folders that split a set into images to learn from and images to test with."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ..utils.errors import UserError, counted, plain

# train, Training, train2017, train_images, trainA; the same of the others
SPLIT = re.compile(
    r"(train|val|valid|validation|eval|test)(ing)?[-_ ]?(\d*|set|data|images|imgs|[ab])", re.I
)
KINDS = {"valid": "val", "validation": "val", "eval": "val"}
ORDER = ("train", "val", "test")


def split_of(folder: str) -> str | None:
    """Return "train", "val" or "test" for the name of a folder that is a split, else None."""
    found = SPLIT.fullmatch(folder)
    return KINDS.get(kind := found[1].lower(), kind) if found else None


def choose_split(
    names: Sequence[str], wanted: str, where: str
) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the files of one split, and a note on it; all of them where there are no splits.

    Folders side by side are splits if their names say so of two kinds and of `train`, or of all of
    them: a `train` among other vehicles is a class. They may lie at any depth. The split is the
    `wanted` one ("train" or "test"); in place of a missing "train" the first there is. Raise
    UserError for a missing "test".
    """
    folders = Counter(name.rpartition("/")[0] for name in names)
    chosen = {
        parent: pick(children, wanted, where) for parent, children in children_of(folders).items()
    }
    chosen = {parent: children for parent, children in chosen.items() if children}
    if not chosen:
        return names, like_splits(folders)
    outside = {folder: left_out(folder, chosen) for folder in folders}
    learned = sorted({child for children in chosen.values() for child in children})
    lost: Counter[str] = Counter()
    for folder, n in folders.items():
        if (part := outside[folder]) is not None:
            lost[f"{part}/" if part else "beside them"] += n
    kept = [name for name in names if outside[name.rpartition("/")[0]] is None]
    others = ", ".join(f"{plain(part, 100)} ({n:,})" for part, n in lost.items())
    note = (
        f"the folders are splits, of which {'/, '.join(learned)}/ is learned "
        f"({counted(len(kept), 'image')}), and others are not: {others}"
    )
    return kept, (plain(note),)


def like_splits(folders: Iterable[str]) -> tuple[str, ...]:
    """Return a note on folders side by side that are taken for classes, and whose names have the
    words of splits in them."""
    for children in children_of(folders).values():
        words = [{*re.split(r"[^a-z]+", child.lower())} for child in children]
        if any("train" in of for of in words) and any({"test", "val", "dev"} & of for of in words):
            found = ", ".join(sorted(children)[:5])
            return (plain(f"{found} are learned together: are they splits? Name one by --data"),)
    return ()


def children_of(folders: Iterable[str]) -> Mapping[str, set[str]]:
    """Return the names of the folders in each folder, by its path; "" is the uppermost."""
    children: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        while folder:
            folder, _, name = folder.rpartition("/")
            children[folder].add(name)
    return children


def pick(children: set[str], wanted: str, where: str) -> set[str]:
    """Return those of the folders side by side that are the wanted split; none where they are no
    splits."""
    kinds = {child: split_of(child) for child in children}
    found = {kind for kind in kinds.values() if kind}
    if len(found) < 2 or not ("train" in found or all(kinds.values())):
        return set()
    if wanted not in found and wanted != "train":
        raise UserError(f"there is no split {wanted} in {where}; there are {', '.join(children)}")
    take = wanted if wanted in found else next(kind for kind in ORDER if kind in found)
    return {child for child, kind in kinds.items() if kind == take}


def left_out(folder: str, chosen: Mapping[str, set[str]]) -> str | None:
    """Return the part of a folder's path that is not of the chosen splits, "" for one that lies
    beside them; None where it is of them."""
    parts = folder.split("/") if folder else []
    for depth in range(len(parts) + 1):
        children = chosen.get("/".join(parts[:depth]))
        if children and (depth == len(parts) or parts[depth] not in children):
            return parts[depth] if depth < len(parts) else ""
    return None
