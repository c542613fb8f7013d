"""The rates of a chip are measured, and predicted by counting operations."""

import json
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import chip


@pytest.fixture
def fresh_accelerator():
    """Each job begins, as in a process of its own, without the settings of another's."""

    def reset():
        AcceleratorState._reset_state(reset_partial_state=True)

    reset()
    yield reset
    reset()


def test_steps_are_timed_and_their_operations_counted(fresh_accelerator):
    row = chip.time_steps("ours", "small", 1, chip.Machine("cpu"), seconds=0.01)
    assert row["flop"] == pytest.approx(2.55e9, rel=0.02)  # as docs/results.md has it
    assert len(row["seconds"]) == 10
    assert min(row["seconds"]) > 0


@pytest.mark.long
def test_speed_is_measured_beside_the_chip(fresh_accelerator, tmp_path, monkeypatch, capsys):
    def here(job, *args):
        fresh_accelerator()
        return job(*args)

    monkeypatch.setattr(chip, "alone", here)
    options = ["--network", "small", "--batch", "2", "--no-compiled", "--seconds", "0.01",
               "--libraries", "ours", "no-such-library", "--device", "cpu",
               "--out", str(tmp_path / "speed.json")]  # fmt: skip
    assert chip.main(["speed", *options]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["float32", "bf16"]
    for row in result["rows"]:
        assert row["images_per_second"] > 0
        assert row["flop"] / 2 == pytest.approx(2.55e9, rel=0.02)
        assert row["share"] > 0
    assert "no-such-library is not installed" in capsys.readouterr().err


def test_a_prediction_counts_operations(capsys):
    assert chip.main(["predict", "cifar10-paper", "--tflops", "37.3"]) == 0
    said = capsys.readouterr().out
    assert "35.7 M parameters, 12.4 GFLOP forward, 37.3 GFLOP an image and step" in said
    assert "999 images/s" in said
    assert chip.main(["predict", "mnist"]) == 1
