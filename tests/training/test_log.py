"""metrics.jsonl: a line of means, and its end cut off where a run goes back."""

import json
import math

import pytest
import torch

from ddpm.checkpoint.run_dir import RunDir
from ddpm.training.log import (
    MetricsLog,
    drop_lines_after,
    format_duration,
    logged_step,
    rewind_logs,
)
from ddpm.utils.distributed import SINGLE_PROCESS
from runs import metrics


class State:
    step, images_seen, seconds = 3, 48, 1.23456


def test_a_line_is_the_mean_of_the_steps_since_the_last(tiny, tmp_path):
    log = MetricsLog(RunDir(tmp_path), tiny, SINGLE_PROCESS)
    for k in range(3):
        log.record(1e-3, torch.tensor(float(k)), torch.tensor(2.0))
    losses = log.read()
    assert losses == [(0, 2), (1, 2), (2, 2)]
    assert log.read() == []
    log.write(State, losses[1:], skipped=1)
    log.write(State, [], skipped=3)  # nothing that could be said
    log.close()
    line = {"step": 3, "images": 48, "seconds": 1.235, "loss": 1.5, "lr": 1e-3, "grad_norm": 2.0,
            "skipped": 1}  # fmt: skip
    assert metrics(tmp_path) == [line]
    assert log.loss == 1.5


def test_later_lines_and_torn_ones_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": k}) + "\n" for k in range(5)) + '{"ste')
    drop_lines_after(path, 2)
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2]
    rewind_logs(RunDir(tmp_path), 0)
    assert [line["step"] for line in metrics(tmp_path)] == [0]
    assert RunDir(tmp_path).held_out.read_text() == ""
    assert not RunDir(tmp_path).scores.exists()  # in a run that has none


def test_scores_end_at_the_checkpoint_too(tmp_path):
    run = RunDir(tmp_path)
    run.scores.write_text(
        "".join(json.dumps({"step": k, "distance": 1.0}) + "\n" for k in range(9))
    )
    rewind_logs(run, 4)
    assert [json.loads(line)["step"] for line in run.scores.read_text().splitlines()] == [*range(5)]


@pytest.mark.parametrize(
    "line", ["", "{", "[" * 100_000, '{"step": []}', '{"step": "x"}', '{"step": 1e999}', "\ufffd"]
)
def test_a_torn_line_belongs_to_no_step(line):
    assert logged_step(line) == math.inf


def test_durations():
    durations = [format_duration(s) for s in (0, 59.6, 3599, 3723)]
    assert durations == ["0:00", "1:00", "59:59", "1:02:03"]
