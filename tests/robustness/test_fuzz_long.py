"""The same as the other files of damaged input, for many more cases of each kind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("test_fuzz_*.py"))


@pytest.mark.long
@pytest.mark.parametrize("path", [p for p in FILES if p.name != Path(__file__).name], ids=str)
def test_ten_thousand_cases_of_each_kind(path):
    env = {**os.environ, "DDPM_FUZZ": os.environ.get("DDPM_FUZZ", "10000")}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", str(path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
