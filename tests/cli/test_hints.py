"""What is typed wrongly is told in one sentence, with what may have been meant."""

import json
import re
import subprocess
import sys

import pytest

from ddpm.cli.hints import COMMANDS_ELSEWHERE, ELSEWHERE, options_of
from ddpm.cli.main import COMMANDS, main
from ddpm.cli.train import read_train_options
from ddpm.config import NAMED_SETS
from ddpm.data.sources import TORCHVISION_SETS
from ddpm.utils.errors import UsageError
from ddpm.utils.numbers import read_minutes, read_number, read_whole

KINDS = {name: kind for name, (kind, _) in COMMANDS.items()}


def misused(words, capsys):
    """What is said of words that cannot be understood: one sentence, and exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    out, text = capsys.readouterr()
    assert out == ""
    assert text.startswith("ddpm: ")
    assert text.count("\n") == 1
    assert not re.search(r"<class|typing|NoneType|FieldInfo|\bNone\b", text)
    return text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000), ("1_000", 1000), ("1,000", 1000), ("1e3", 1000), ("100k", 100_000),
        ("1.5k", 1500), ("2M", 2_000_000), ("1B", 10**9), ("-3", -3), ("1.0", 1), (" 7 ", 7),
        ("18446744073709551615", 2**64 - 1),
    ],
)  # fmt: skip
def test_whole_numbers_as_people_write_them(text, value):
    assert read_whole(text) == value
    assert type(read_whole(text)) is int


@pytest.mark.parametrize(
    "text", ["", "many", "1.5", "1,00", "1e-3", "1k5", "k", "nan", "1/2", "9" * 5000, "1e9999"]
)
def test_what_is_no_whole_number(text):
    with pytest.raises(UsageError, match="is not a whole number"):
        read_whole(text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90), ("90m", 90), ("90min", 90), ("1h", 60), ("1.5h", 90), ("30s", 0.5), (".5h", 30),
        ("1h30m", 90), ("1 hour 30 minutes", 90), ("2d", 2880), ("-3", -3), ("1H", 60), ("1e1", 10),
    ],
)  # fmt: skip
def test_times_as_people_write_them(text, minutes):
    assert read_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "soon", "1x", "5ms", "h", "1h30", "1:30", "-1h"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="is not a time: write 90, 90m"):
        read_minutes(text)


def test_what_is_no_number():
    assert read_number("1e-3") == 0.001
    with pytest.raises(UsageError, match=r"'1,5' is not a number: write 0.5"):
        read_number("1,5")


def test_options_take_such_numbers():
    words = ["--minutes", "1.5h", "--train.batch", "1e2", "--held-out=1k", "--size", "1e2", "64"]
    config = read_train_options([*words, "--train.save-minutes", "30s"]).config
    assert (config.minutes, config.train.batch, config.held_out) == (90, 100, 1000)
    assert (config.size, config.train.save_minutes) == ((100, 64), 0.5)
    assert read_train_options(["--images", "100k"]).config.images == 100_000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train --minutes 1x", "--minutes: '1x' is not a time: write 90, 90m, 1.5h or 30s"),
        ("train --minutes=1x", "--minutes: '1x' is not a time"),
        ("train -m soon", "-m: 'soon' is not a time"),
        ("train --steps many", "--steps: 'many' is not a whole number: write 1000, 1e3 or 100k"),
        ("train --size big", "--size: 'big' is not a whole number"),
        ("train --train.lr high", "--train.lr: 'high' is not a number"),
        ("train --data many --steps few", "--steps: 'few' is not a whole number"),
        ("generate --sampler dpm+", "--sampler: 'dpm+' is none of ddpm, ddim, "),
        ("evaluate --split tset", "'tset' is none of train, test; did you mean test?"),
        ("doctor x --channels 2", "--channels: '2' is none of 1, 3, 4"),
        ("train --epochs 3", "there are no epochs: give --minutes, --steps or --images"),
        ("train --epochs=3", "has no option --epochs: there are no epochs"),
        ("train --epoch 3", "there are no epochs"),
        ("train --batch-size 3", "did you mean --train.batch?"),
        ("train --batch_size 3", "no option --batch_size; did you mean --train.batch?"),
        ("generate --batch-size 3", "did you mean --batch?"),
        ("train --resolution 64", "did you mean --size?"),
        ("train --image_size 64", "did you mean --size?"),
        ("generate --image-size 64", "ddpm train has --size"),
        ("train --num-inference-steps 9", "did you mean --sample.steps?"),
        ("generate --num_inference_steps 9", "did you mean --steps?"),
        ("generate --guidance-scale 9", "did you mean --guidance?"),
        ("evaluate --cfg 9", "did you mean --guidance?"),
        ("train --num-workers 9", "no workers are needed"),
        ("train --learning-rate 9", "did you mean --train.lr?"),
        ("train --learnig_rate 9", "did you mean --train.lr?"),
        ("train --lr 9", "did you mean --train.lr?"),
        ("generate --lr 9", "ddpm train has --train.lr"),
        ("train --output-dir x", "did you mean --out?"),
        ("train --report_to wandb", "did you mean --track?"),
        ("train --wandb", "did you mean --track?"),
        ("generate --gpu 0", "--device cuda:1"),
        ("generate --checkpoint x", "a checkpoint is named without an option"),
        ("generate --minutes 3", "ddpm train has --minutes"),
        ("train --label 3", "ddpm generate has --label"),
        ("train --minuts 3", "did you mean --minutes?"),
        ("train --unet.chanels 3", "did you mean --unet.channels?"),
        ("train --diffusion.t 3", "did you mean --diffusion.T?"),
        ("train --no-compile", "did you mean --train.no-compile?"),
        ("demo --nonsense", "demo has no option --nonsense"),
        ("traim", "there is no command traim, but train, generate"),
        ("traim", "did you mean train?"),
        ("Train", "did you mean train?"),
        ("sample", "did you mean generate?"),
        ("help traim", "did you mean train?"),
        ("--steps 3 train", "write ddpm train first"),
        ("--nonsense", "options come after a command: train, generate"),
    ],
)  # fmt: skip
def test_misuse_is_one_sentence_with_what_was_meant(words, says, capsys):
    assert says in misused(words.split(), capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train mnits", "there is no preset 'mnits'; there are .* did you mean mnist?"),
        ("train photos/", "images are given by --data photos/"),
        ("train photos", "images are given by --data photos"),
        ("train fashion-mnist", "images are given by --data fashion-mnist"),
        ("train --data cifar", "there is no data at cifar; .* did you mean cifar10?"),
        ("generate mnits", "there is no checkpoint at mnits; .* did you mean mnist?"),
    ],
)
def test_a_name_that_is_none_is_told_with_one_like_it(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert main(words.split()) == 1
    assert re.search(says.replace("?", r"\?"), capsys.readouterr().err)


def test_each_answer_is_there():
    assert set(COMMANDS_ELSEWHERE.values()) <= set(COMMANDS)
    assert not set(COMMANDS_ELSEWHERE) & set(COMMANDS)
    there = {option for kind in KINDS.values() for option in options_of(kind)}
    for answer in ELSEWHERE.values():
        assert not answer.startswith("--") or set(answer.split()) <= there


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_of_the_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit):
        main([command, "--help-all" if command == "train" else "--help"])
    shown = re.findall(r"^(?:│ |  )(-.*?)(?:  +|│|$)", capsys.readouterr().out, re.M)
    names = {part.split()[0] for line in shown for part in line.split(", ")} - {"-h", "--help"}
    assert names <= set(options_of(KINDS[command]))
    off = {f"--{dots}no-{name}" for option in names for dots, name in [split(option)]}
    assert set(options_of(KINDS[command])) <= names | off


def split(option):
    dots, dot, name = option.lstrip("-").rpartition(".")
    return dots + dot, name


def helped(words, capsys):
    """What help is shown."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_of_training_is_a_page_that_names_all(capsys):
    text = helped(["train", "--help"], capsys)
    assert len(text.splitlines()) <= 60
    boxed = re.findall(r"^(?:│ |  )(?:-\w[^,]*, )?--([a-z-]+)", text, re.M)
    first = ["out", "resume", "device", "data", "size", "minutes", "steps", "images", "flip"]
    assert boxed[1:10] == first
    for option in (name for name in options_of(KINDS["train"]) if name.startswith("--")):
        assert re.search(rf"[ .-]{split(option)[1].removeprefix('no-')}\b", text)
    assert helped(["help", "train"], capsys) == text
    of_preset = helped(["train", "cifar10", "--epochs", "-h"], capsys)
    assert re.search(r"\(default:[ │\n]*cifar10\)", of_preset)
    assert "subcommands" in helped(["help"], capsys)


def test_the_named_sets_are_those_that_can_be_read():
    assert set(NAMED_SETS) == {"mnist5k", *TORCHVISION_SETS}


EARLY = [
    ("generate nowhere", "there is no checkpoint at nowhere"),
    ("generate runs", "there is no checkpoint at runs/model.safetensors"),
    ("generate --guide nowhere", "there is no checkpoint at nowhere"),
    ("generate --label 10", "there is no class '10'; there are 10: 0, 1"),
    ("generate cifar10 --label forg", "there is no class 'forg'; .* did you mean frog?"),
    ("generate celeba64 --label 1", "trained without classes, so no label can be asked"),
    ("generate --steps 2000", "2000 steps are more than the 1000"),
    ("generate --steps 0", "steps should be greater than or equal to 1"),
    ("generate --guidance-above 2", "guidance_above should be less than or equal to 1"),
    ("generate --eta 1 --sampler heun", "--eta is for --sampler ddim, and this is heun"),
    ("generate celeba64 --eta 0", r"--eta is for --sampler ddim, and this is dpm\+\+sde"),
    ("generate --variance beta --sampler ddim", "--variance is for --sampler ddpm"),
    ("generate --sigma-min 0.1", "--sigma-min is for --spacing rho and log-snr, and this is root"),
    ("generate --guidance-below 0.6", "above 0.7 and up to 0.6 of T is at none"),
    ("generate cifar10 --guidance-above 0.7", "above 0.7 and up to 0.65 of T is at none"),
    ("generate celeba64 --guidance 0", "towards the weaker network, the guide"),
    ("generate --guide mnist --guidance 0.5", "towards the weaker network, the guide"),
    ("generate --image nowhere.png", "there is no image at nowhere.png"),
    ("generate --image a.npz --mask nowhere.png", "there is no image at nowhere.png"),
    ("generate --strength 0.5", "--strength is for --image"),
    ("generate --out a.tiff", "end it in .png"),
    ("generate --out a.npz", "a.npz is there already"),
    ("evaluate nowhere", "there is no checkpoint at nowhere"),
    ("evaluate a.npz --data nowhere", "there is no data at nowhere"),
    ("evaluate a.npz --against nowhere.json", "there is no file at nowhere.json"),
    ("train --data nowhere", "there is no data at nowhere"),
    ("train --init nowhere", "there is no checkpoint at nowhere"),
    ("train --train.lr 0", "train.lr should be greater than 0"),
    ("train nonsense", "there is no preset 'nonsense'"),
    ("train --resume --out nowhere", "there is no run to resume in nowhere"),
    ("train --resume", "--resume needs the folder of the run"),
    ("doctor nowhere", "there is no data at nowhere"),
    ("convert nowhere x", "there is no checkpoint at nowhere"),
    ("publish nowhere a/b", "there is no checkpoint at nowhere"),
    ("demo nowhere", "there is no checkpoint at nowhere"),
    ("replay nowhere", "there is no file at nowhere"),
]


def test_what_is_missing_or_out_of_range_is_told_before_torch_is_imported(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "a.npz").touch()
    code = """
import contextlib, io, json, sys
from ddpm.cli.main import main
told = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(words.split())
    told.append([code, said.getvalue(), sorted({"torch", "torchvision"} & set(sys.modules))])
print(json.dumps(told))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([words for words, _ in EARLY])],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for (words, says), (code, text, loaded) in zip(EARLY, json.loads(done.stdout), strict=True):
        assert re.search(says.replace("?", r"\?"), text), f"{words}: {text}"
        assert (code, text.count("\n"), loaded) == (1, 1, []), words
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "a.npz"}
