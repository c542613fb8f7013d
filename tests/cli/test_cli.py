"""The commands as a person types them: help, presets, overrides, and one sentence for a mistake."""

import logging
import re
import signal
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ddpm import load
from ddpm.cli.common import notes_shown
from ddpm.cli.main import COMMANDS, main
from ddpm.cli.train import read_train_options
from ddpm.config import Config, preset, presets, read_toml, to_dict, validated, write_toml
from ddpm.core.types import SamplerName
from ddpm.utils.errors import UserError

TINY = [
    "--unet.channels", "8", "--unet.blocks", "1", "--unet.groups", "4", "--unet.patch", "4",
    "--unet.attention", "8", "--train.batch", "8", "--sample.steps", "2", "--held-out", "16",
]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_comes_without_torch(words):
    code = (
        "import sys\nfrom ddpm.cli.main import main\ntry: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'accelerate', 'tqdm'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for word in presets() if "train" in words else ["evaluate"] if words[1:] else COMMANDS:
        assert word in done.stdout


def test_digits_come_without_waiting_for_torchs_compiler(tmp_path):
    code = (
        "import sys; from ddpm.cli.main import main;"
        "assert main(['generate', '--n', '1', '--steps', '1', '--out', 'digit.png']) == 0;"
        "assert not {'torch._dynamo', 'sympy', 'torchvision', 'accelerate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_that_says_what_is_wanted(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ddpm {command}" in text
    assert not re.search(r"\b(STR|INT|FLOAT|None)\b", text)
    if command in ("train", "generate", "evaluate"):
        assert "-o " in text
        assert "--seed" in text


def test_version_and_no_such_command(capsys):
    assert main(["--version"]) == 0
    with pytest.raises(SystemExit) as end:
        main(["fly"])
    assert end.value.code == 2
    assert "fly" in capsys.readouterr().err


@pytest.mark.parametrize("name", presets())
def test_presets_are_whole_and_survive_toml(name, tmp_path):
    config = preset(name)
    assert sum(b is not None for b in (config.steps, config.images, config.minutes)) == 1
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(tmp_path / "config.toml") == config
    assert validated(Config, to_dict(config)) == config


def test_the_paper_presets_are_the_paper():
    c = preset("cifar10-paper")
    assert (c.diffusion.schedule, c.diffusion.T, c.diffusion.target) == ("linear", 1000, "eps")
    assert (c.train.lr, c.train.batch, c.train.ema, c.train.warmup) == (2e-4, 128, 0.9999, 5000)
    assert (c.unet.dropout, c.flip, c.labels, c.steps) == (0.1, True, False, 800_000)
    assert (c.sample.sampler, c.sample.steps, c.sample.variance) == ("ddpm", 1000, "beta")
    assert not preset("mnist").flip
    assert not preset("first-run").flip


def test_options_change_the_preset_and_a_budget_takes_the_place_of_its_own():
    words = ["mnist", "--train.lr", "0.5", "--steps", "7", "--size", "30", "44"]
    config = read_train_options(words).config
    assert (config.data, config.train.lr, config.size) == ("mnist", 0.5, (30, 44))
    assert (config.steps, config.minutes) == (7, None)
    assert read_train_options([]).config == preset("first-run")
    assert read_train_options(["--seed", "3", "mnist"]).config.data == "mnist"
    assert read_train_options(["--minutes", "2"]).config.minutes == 2
    assert read_train_options(["cifar10-paper", "--no-flip"]).config.flip is False
    assert read_train_options(["--init", "mnist"]).config.init == "mnist"
    short = read_train_options(["-o", "here", "-m", "2", "-s", "3"])
    assert (short.out, short.config.minutes, short.config.seed) == ("here", 2, 3)


def test_choices_are_listed_in_the_order_of_the_code(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    choices = ",".join(get_args(SamplerName))
    assert f"--sampler {{{choices}}}" in capsys.readouterr().out


def test_notes_of_the_library_are_shown_once_and_by_the_main_process_alone(monkeypatch, capsys):
    def speak():
        with notes_shown():
            logging.getLogger("ddpm.data.folder").info("three files are damaged")
            logging.getLogger("ddpm.data.folder").debug("of no interest")

    speak()
    speak()
    assert capsys.readouterr().err == 2 * "note: three files are damaged\n"
    monkeypatch.setenv("RANK", "1")
    speak()
    logging.getLogger("ddpm.data.folder").info("after the command")
    assert capsys.readouterr().err == ""


def test_train_generate_and_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--steps", "2", *TINY]) == 0
    assert main(["train", "--steps", "2", *TINY]) == 0  # the next free name
    assert load("runs/first-run").step == load("runs/first-run-2").step == 2
    assert main(["train", "--out", "runs/first-run", "--resume", "--steps", "5"]) == 0
    assert load("runs/first-run").step == 5
    assert load("runs/first-run").config.unet.channels == 8
    assert main(["train", "--out", "runs/first-run", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "has used its budget" in out
    assert out.rstrip().endswith("such as --steps 8")
    assert main(["generate", "runs/first-run", "--n", "2", "--out", "a.png"]) == 0
    assert "a.png" in capsys.readouterr().out


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    words = ["train", "--steps", "100000", *TINY, "--train.log-every", "1", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping: saving after this step" in err
    assert "go on with: ddpm train --out run --resume" in out
    assert load(tmp_path / "run").step > 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with all that can be wrong with data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "dots").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "dots" / "a.png")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and nothing more")
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((4, 16, 16, 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "there is no data at nowhere"),
        (["--data", "empty"], "there are no images in empty: it is empty"),
        (["--data", "texts"], "there are no images in texts: its only file is not an image"),
        (["--data", "dots"], "1x1 pixels are too few"),
        (["--data", "bad.zip"], "bad.zip is not a folder, a zip or an npz"),
        (["--data", "mnist", "--root", "file/x"], "mnist is not whole in file/x"),
        (["nonsense"], "there is no preset 'nonsense'"),
        (["--minutes", "-3"], "minutes should be greater than 0, not -3.0"),
        (["--steps", "0"], "steps should be greater than or equal to 1"),
        (["--steps", "3", "--minutes", "1"], "one budget"),
        (["--train.batch", "-1"], "batch should be greater"),
        (["--train.lr", "nan"], "lr should be"),
        (["--train.ema", "1.5"], "ema should be less than 1"),
        (["--train.accumulate", "3"], "cannot be cut into 3 parts"),
        (["--unet.channels", "30"], "30 channels do not divide into 8 groups"),
        (["--unet.channels", "9", "--unet.groups", "3"], "channels must be even"),
        (["--unet.mults", "--unet.attention"], "mults must name"),
        (["--unet.channels", "1000000000"], "channels should be less than or equal to"),
        (["--diffusion.T", "1000000000"], "T should be less than or equal to"),
        (["--sample.eta", "1e200"], "eta should be less than or equal to 1"),
        (["--unet.attention", "16"], "the levels are at [2, 4]"),
        (["--sample.steps", "2000"], "sample.steps 2000 is more than diffusion.T, which is 1000"),
        (["--out", "used"], "used is in use"),
        (["--out", "file/run"], "cannot write to file/run"),
        (["--out", "/proc/run"], "cannot write to /proc/run"),
        (["--resume"], "--resume needs the folder"),
        (["--resume", "--out", "empty"], "there is no run to resume in empty"),
        (["--device", "cuda:77"], "there is no device 'cuda:77'"),
        (["--size", "2", "3", "4"], "size is one number, or height and width"),
        (["--data", "a.npz", "--size", "4"], "too small"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(words, message, here, capsys):
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert main(["train", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    *notes, last = error.splitlines()  # which are said of the images, before they are learned
    assert message in last
    assert all(line.startswith("note: ") for line in notes), error
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("words", [["--nonsense"], ["--unet.nonsense", "3"], ["--steps", "many"]])
def test_an_option_that_is_not_one(words, here, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_config_file_that_is_wrong_is_a_sentence(tmp_path):
    path = tmp_path / "config.toml"
    for text, message in [
        ("steps = ", "cannot be read as TOML"),
        ("colour = 3", "colour"),
        ("[unet]\nchannels = 'many'", "unet.channels"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_toml(path)
