"""The notebooks run from the first cell to the last, and were kept with their pictures."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
# The line that says how long to train, the kind of picture, and how many cells show one.
NOTEBOOKS = {
    "tour": ("seconds = 90", "image/png", 9),
    "one-whiteboard": ("seconds = 15", "image/svg+xml", 4),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_shows_its_pictures(name):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    training, kind, pictures = NOTEBOOKS[name]
    notebook = nbformat.read(DOCS / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs = []
    (long,) = [cell for cell in cells if training in cell.source]
    long.source = long.source.replace(training, "seconds = 0.2")
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [any(kind in o.get("data", {}) for o in cell.outputs) for cell in cells]
    assert shown.count(True) == pictures


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_was_kept_with_its_pictures(name):
    text = (DOCS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text.count(f'"{NOTEBOOKS[name][1]}"') >= NOTEBOOKS[name][2]
    assert len(text) < 3_000_000
