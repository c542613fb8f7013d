"""Imports run one way, core knows only torch, nothing that is loaded can run, files stay short."""

import ast
import builtins
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ddpm"
BELOW = {"core": set(), "utils": set(), "config": {"core", "utils"}}  # what each may import
BELOW["data"] = BELOW["checkpoint"] = {"core", "utils", "config"}
BELOW["generation"] = {*BELOW["data"], "checkpoint"}
BELOW["evaluation"] = {*BELOW["generation"], "data", "generation"}
BELOW["demo"] = {*BELOW["evaluation"], "evaluation"}
BELOW["training"] = {*BELOW["evaluation"], "evaluation"}  # runs are scored while they train
BELOW["cli"] = {*BELOW["training"], "training", "evaluation", "demo", "__init__"}
BELOW["__main__"] = {"cli"}


def imports(path):
    """(folders or modules of ours, everything else) that a file imports, wherever in it."""
    ours, others = set(), set()
    here = path.relative_to(SOURCE).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            ours.add([*base, *(node.module or "__init__").split(".")][0])
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            others |= {(module or name.name).split(".")[0] for name in node.names}
    return ours, others


def test_imports_run_one_way():
    for path in set(SOURCE.rglob("*.py")) - {SOURCE / "__init__.py"}:
        (ours, others), folder = imports(path), path.relative_to(SOURCE).with_suffix("").parts[0]
        assert ours <= {folder, *BELOW[folder]}, path
        assert folder != "core" or others <= {"torch"} | sys.stdlib_module_names, path


def test_the_package_holds_what_its_design_says():
    names = {p.name for p in SOURCE.iterdir() if p.name != "__pycache__"}
    files = {"__init__.py", "__main__.py", "config.py", "py.typed"}
    assert names == {*BELOW, *files, "presets", "weights"} - {"config", "__main__"}


def functions(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    for node in (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
        yield node.name, node.end_lineno - node.lineno + 1


def test_files_and_functions_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path
        for name, lines in functions(path):
            assert lines <= (70 if name == "train" else 80), f"{name} in {path}"


SERVER = SOURCE / "demo" / "server.py"


def test_only_the_command_and_the_server_print():
    for path in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        prints = any(isinstance(n, ast.Name) and n.id == "print" for n in nodes)
        speaks = path in (*(SOURCE / "cli" / f"{n}.py" for n in ("main", "common")), SERVER)
        assert speaks or not prints, f"{path}: say() prints no control characters"


# What runs what it is given, or unpickles it, which is the same.
DANGEROUS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib",
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "pandas.read_pickle", "yaml",
}  # fmt: skip
# Settings under which a function does not.
SAFE = {"allow_pickle": False, "shell": False, "trust_remote_code": False, "weights_only": True}
# What may, and why it is safe where we ask it.
ALLOWED = {
    "torch.load": ("foreign", "weights_only: tensors and plain tables, of files of others"),
    "torch_fidelity.feature_extractor_inceptionv3": (
        "features", "unpickles a file of weights: one alone, known by the whole of its SHA-256",
    ),
    "torch.jit.load": (
        "features", "a network that a person names: neither read nor run by Python",
    ),
    "torchvision.datasets": (
        "sources", "unpickles CIFAR-10: after it has compared the MD5 of every file",
    ),
    "datasets.load_dataset": ("hub", "tables and images: the code of a set is never run"),
}  # fmt: skip


def names_used(tree):
    """Every name of a module's that code refers to, in full: `np.load`, and `load` after
    `from numpy import load`, are both numpy.load. `net.eval` is no such name."""
    known = {name: name for name in dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        rest, at = "", node
        while isinstance(at, ast.Attribute):
            rest, at = f".{at.attr}{rest}", at.value
        if isinstance(at, ast.Name) and isinstance(at.ctx, ast.Load) and at.id in known:
            yield known[at.id] + rest


def among(name, names):
    return next((n for n in names if name == n or name.startswith(f"{n}.")), None)


def test_nothing_that_is_loaded_can_run():
    asked = {}
    for folder in ("src", "scripts", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for name in names_used(tree):
                assert not among(name, DANGEROUS), f"{name} in {path.name}"
                if found := among(name, ALLOWED):
                    asked[found] = path.stem
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("torch.load"):
                    assert "weights_only" in {k.arg for k in node.keywords}, path
                if isinstance(node, ast.keyword) and node.arg in SAFE:
                    assert isinstance(node.value, ast.Constant), f"{path.name}:{node.lineno}"
                    assert node.value.value is SAFE[node.arg], f"{path.name}:{node.lineno}"
    assert asked == {name: where for name, (where, _) in ALLOWED.items()}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("import torch as t\nt.load('x')", "torch.load"),
        ("from torch import load as get\nget('x')", "torch.load"),
        ("import pickle", "pickle"),
        ("from os import system", "os.system"),
        ("eval('1')", "eval"),
        ("run = exec", "exec"),
        ("import os.path\nos.popen('x')", "os.popen"),
        ("net.eval()\nmodel.load('x')\nimport re\nre.compile('x')", None),
    ],
)
def test_what_would_run_is_seen(text, seen):
    watched = {*DANGEROUS, *ALLOWED}
    found = {among(name, watched) for name in names_used(ast.parse(text))} - {None}
    assert found == ({seen} if seen else set())


def test_every_name_of_the_package_is_there():
    for name in ddpm.__all__:
        assert getattr(ddpm, name) is not None
    assert set(ddpm.__all__) <= set(dir(ddpm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ddpm.nothing


def test_train_and_generate_are_the_functions_however_they_are_reached():
    code = (
        "import ddpm.training.train, ddpm.generation.generate, ddpm.evaluation.evaluate, ddpm;"
        "from ddpm import train, generate, evaluate;"
        "assert callable(train) and callable(generate) and callable(evaluate);"
        "assert ddpm.train is train and ddpm.generate is generate and ddpm.evaluate is evaluate"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_equations_are_those_of_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["equations.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "equations.py"), run_name="__main__")
    assert ended.value.code == 0


@pytest.mark.parametrize("name", ["train_mnist", "generate"])
def test_examples_are_short(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 60


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["train_mnist.py", "2"], ["generate.py", "digits.safetensors", "3"]):
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(ROOT / "examples" / words[0]), run_name="__main__")
    assert (tmp_path / "digits.png").stat().st_size > 1000
