"""The notebook runs from its first cell to its last, and every picture is there."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def executed():
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    training = next(cell for cell in notebook.cells if "seconds = 90" in cell.source)
    training.source = training.source.replace("seconds = 90", "seconds = 2")
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    return nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()


def test_it_runs_and_shows_its_pictures(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    pictures = [any("image/png" in o.get("data", {}) for o in cell.outputs) for cell in code]
    assert len(code) == 10
    assert pictures.count(True) == 9  # all but the training


def test_it_was_kept_with_its_pictures():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.count('"image/png"') == 9
    assert len(text) < 2_000_000
