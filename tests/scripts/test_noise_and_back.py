"""Real images, noised and sampled back, are handed to the ruler, from every time asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "noise_and_back.py"
RULER = (
    "import numpy, sys; a = numpy.load(sys.argv[1])['arr_0']; print(f'n={len(a)} mean={a.mean()}')"
)


@pytest.mark.long
def test_every_time_is_scored(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    (tmp_path / "ruler.py").write_text(RULER)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "run"), "--data", tiny.data, "--n", "6",
         "--times", "2", str(tiny.diffusion.T), "--steps", "4",
         "--ruler", f"{sys.executable} {tmp_path / 'ruler.py'} {{samples}}"],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0].split(", ")[-1] for line in lines] == [
        "real images", "1 steps", "1 steps", "4 steps",
    ]  # fmt: skip
    assert all("n=6" in line for line in lines)
    assert len({line.split("mean=")[1] for line in lines}) > 1
