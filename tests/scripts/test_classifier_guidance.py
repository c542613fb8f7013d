"""The bundled classifier leads a network that is asked for no class."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "classifier_guidance.py"


@pytest.mark.long
def test_the_class_comes(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "mnist", "--label", "3", "--n", "12", "--steps", "12",
         "--out", str(tmp_path / "threes.png")],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    without, guided = (int(share) for share in re.findall(r"in (\d+)%", done.stdout))
    assert guided >= 75 > 50 > without
    assert (tmp_path / "threes.png").stat().st_size > 1000
