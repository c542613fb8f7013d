"""The house: imports run one way, the whiteboard knows only torch, no work in an import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ddpm"
# Every module may import those before it, and none after it.
ORDER = [
    "errors", "folders", "schedule", "diffusion", "sampling", "editing", "likelihood", "guidance",
    "layers", "unet",
    "config", "images", "noise", "ema", "decoding", "spool", "readers", "advice", "hub", "data",
    "device", "team", "shard", "checkpoint", "generate", "heldout", "run", "keep", "train",
    "doctor", "replay",
    "digit_net", "cifar_net", "features", "metrics", "copies", "score", "judge", "evaluate",
    "convert",
    "demo.pictures", "demo.charts", "demo.shelf", "demo.making", "demo.whiteboard",
    "demo.training", "demo.uploads", "demo.page", "demo.server",
    "options", "commands", "scoring", "cli",
]  # fmt: skip
WHITEBOARD = {
    "schedule": set(),
    "diffusion": {"schedule"},
    "sampling": {"schedule", "diffusion"},
    "likelihood": {"schedule", "diffusion", "sampling"},
    "editing": {"diffusion", "sampling"},
    "guidance": set(),
    "layers": set(),
    "unet": {"layers"},
}


def imports(path):
    """(modules of ours, everything else) that a file imports, wherever in it."""
    ours, others = set(), set()
    folder = "" if path.parent == SOURCE else f"{path.parent.name}."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            ours |= {(folder if node.level == 1 else "") + name for name in names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return ours - {"__version__"}, others


def test_every_module_has_its_place():
    found = {p.relative_to(SOURCE).with_suffix("") for p in SOURCE.rglob("*.py")}
    names = {".".join(p.parts) for p in found if not p.name.startswith("__")}
    assert names == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name):
    ours, _ = imports(SOURCE / f"{name.replace('.', '/')}.py")
    assert ours <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize("name", WHITEBOARD)
def test_the_whiteboard_is_torch_alone(name):
    ours, others = imports(SOURCE / f"{name}.py")
    assert ours <= WHITEBOARD[name]
    assert others <= {"torch"} | sys.stdlib_module_names


def test_nothing_that_is_loaded_can_run():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for word in ("pickle.", "torch.load", "eval(", "exec(", "os.system", "shell=True"):
            if word == "eval(":
                text = text.replace(".eval()", "")
            assert word not in text, f"{word} in {path.name}"
        assert "allow_pickle=True" not in text


def test_every_name_of_the_package_is_there():
    for name in ddpm.__all__:
        assert getattr(ddpm, name) is not None
    assert set(ddpm.__all__) <= set(dir(ddpm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ddpm.nothing


def test_train_and_generate_are_the_functions_however_they_are_reached():
    code = (
        "import ddpm, ddpm.train, ddpm.generate, ddpm.evaluate; from ddpm.train import train_step;"
        "from ddpm import train, generate, evaluate;"
        "assert callable(train) and callable(generate) and callable(evaluate);"
        "assert ddpm.train is train and ddpm.generate is generate and ddpm.evaluate is evaluate"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_equations_are_those_of_the_code():
    subprocess.run([sys.executable, ROOT / "scripts" / "equations.py", "--check"], check=True)


@pytest.mark.parametrize("name", ["train_mnist", "generate"])
def test_examples_are_short(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 60


def test_examples_run(tmp_path):
    for words in (["train_mnist.py", "2"], ["generate.py", "digits.safetensors", "3"]):
        subprocess.run(
            [sys.executable, ROOT / "examples" / words[0], *words[1:]], cwd=tmp_path, check=True
        )
    assert (tmp_path / "digits.png").stat().st_size > 1000
