"""A run that is killed at any moment ends with the same weights, once it is resumed."""

import multiprocessing
import random
import sys
import time
from dataclasses import replace

import pytest

from runs import assert_same, go_on, tensors


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from a server")
@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.long)])
def test_killed_many_times_it_ends_with_the_same_weights(kills, tiny_dropout, tmp_path):
    """At moments drawn at random: while it reads, steps, writes, renames or draws."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ddpm.training.train"])
    config = replace(tiny_dropout, steps=12)
    config = replace(config, train=replace(config.train, save_minutes=1e-6))  # at every step

    def process_for(path):
        process = context.Process(target=go_on, args=(config, path))
        process.start()
        return process

    process_for(tmp_path / "warm").join()  # the server has loaded what it will fork
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
