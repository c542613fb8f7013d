"""What tests read of a run's folder."""

import json

import torch
from safetensors.torch import load_file

from ddpm.checkpoint.run_dir import RunDir


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
