"""A run that is killed at any moment ends with the same weights, once it is resumed."""

import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import forked
from runs import assert_same, go_on, tensors


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from a server")
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.long)])
def test_killed_many_times_it_ends_with_the_same_weights(kills, tiny_dropout, tmp_path):
    """At moments drawn at random: while it reads, steps, writes, renames or draws."""
    config = replace(tiny_dropout, steps=12)
    config = replace(config, train=replace(config.train, save_minutes=1e-6))  # at every step

    def process_for(path, config=config):
        process = forked.context.Process(target=go_on, args=(config, path))
        process.start()
        return process

    once = replace(config, steps=1)
    process_for(tmp_path / "warm", once).join()  # the server has loaded what it will fork
    began = time.monotonic()
    process_for(tmp_path / "whole").join()
    takes = time.monotonic() - began
    wanted, rng = tensors(tmp_path / "whole"), random.Random(0)
    wanted_guide = (tmp_path / "whole" / "guide.safetensors").read_bytes()
    killed = ends = 0
    while killed < kills or ends == 0:
        path = tmp_path / f"run-{ends}"
        process = process_for(path)
        process.join(rng.uniform(0.2, 0.8) * takes if killed < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0
            assert_same(tensors(path), wanted)
            assert (path / "guide.safetensors").read_bytes() == wanted_guide
            ends += 1


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="calls have other numbers"
)
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param((187,), id="one"),
        pytest.param(range(1, 31), id="first thirty", marks=pytest.mark.long),
        pytest.param(range(31, 196, 3), id="others", marks=pytest.mark.long),
    ],
)
def test_killed_at_a_system_call_that_writes(calls, tmp_path):
    """All of it is as if it had not been: weights, files, lines of logs; and nothing is left over.
    Of a write, half is done."""
    script = Path(__file__).with_name("kill_at_calls.py")
    path = os.pathsep.join([str(script.parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path, *map(str, calls)], capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    if "] ptrace" in done.stderr:
        pytest.skip("no process can be traced here")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ends = [line for line in done.stdout.splitlines() if " after " in line]
    assert len(ends) >= 0.8 * len(calls)  # of the last, there may be fewer in another version
    assert not [line for line in ends if not line.startswith("same after")]
