"""Runs that are watched."""

import json
import os

from PIL import Image

from ddpm.checkpoint.run_dir import RunDir
from ddpm.demo import runs


def test_a_run_is_looked_at_while_it_trains(tmp_path):
    assert "There is no run" in runs.run_html(tmp_path, None)
    run = tmp_path / "a"
    (run / "samples").mkdir(parents=True)
    (run / "config.toml").write_text("")
    assert list(runs.runs_by_name(tmp_path)) == ["a"]
    assert "has begun" in runs.run_html(tmp_path, "a")
    lines = [{"step": i, "images": 8 * i, "seconds": i, "loss": 1 / i} for i in range(1, 2000)]
    torn = '{"step": 2000, "ima'
    (run / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), torn]))
    Image.new("L", (8, 8)).save(run / "samples" / "0000001-ema.png")
    html = runs.run_html(tmp_path, "a")
    assert "training now" in html
    assert "step 1,999" in html
    assert html.count("<img") == 1
    assert "There is no run" in runs.run_html(tmp_path, "../../etc")
    assert list(runs.runs_by_name(run)) == ["a"]
    assert runs.run_html(run, "a") == html
    run = run.rename(tmp_path / "<b>&c")
    assert "&lt;b&gt;&amp;c: training now" in runs.run_html(tmp_path, "<b>&c")


def test_a_run_is_looked_at_anew_when_there_is_something_new(tmp_path):
    run, metrics = tmp_path / "a", tmp_path / "a" / "metrics.jsonl"
    (run / "samples").mkdir(parents=True)
    metrics.write_text("")
    stamps = [runs.run_version(RunDir(run)), runs.run_version(RunDir(run))]
    assert stamps[0] == stamps[1]
    (run / "samples" / "0000001-ema.png").write_bytes(b"")
    stamps.append(runs.run_version(RunDir(run)))
    os.utime(metrics, (1e9, metrics.stat().st_mtime + 1))
    stamps.append(runs.run_version(RunDir(run)))
    os.utime(metrics, (1e9, 1e9))
    stamps.append(runs.run_version(RunDir(run)))
    assert len(set(stamps)) == 4
