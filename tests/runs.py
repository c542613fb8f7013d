"""What tests read of a run's folder, and a run in a process of its own."""

import json
import os
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from ddpm import train
from ddpm.checkpoint.run_dir import RunDir, inspect_run


def tensors(path):
    """Everything of a run that follows from its seed: weights, averages, moments."""
    run = RunDir(path)
    return load_file(run.state) | load_file(run.model)


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a), "weights differ"


def metrics(path):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in RunDir(path).metrics.read_text().splitlines()]


@contextmanager
def before_step(k, change):
    """While this lasts, change(net) is called before the k-th step that is taken."""
    module, steps = sys.modules["ddpm.training.train"], []
    honest = module.train_step

    def changing(accelerator, net, *args):
        steps.append(1)
        if len(steps) == k:
            change(net)
        return honest(accelerator, net, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train_step", changing)
        yield


def go_on(config, path):
    """Begin or resume a run, quietly: what a process does that is to be killed."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    train(config, path, device="cpu", resume=inspect_run(path).is_run)
