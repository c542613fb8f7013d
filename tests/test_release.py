"""What is published says what it is, and the workflow that builds it tries what there is."""

import re
import tomllib
from pathlib import Path

import ddpm
from ddpm.cli.common import parse
from ddpm.cli.main import COMMANDS
from ddpm.cli.train import read_train_options

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_version_is_one_and_has_a_place_among_the_changes():
    assert PROJECT["version"] == ddpm.__version__
    assert re.search(
        rf"^## (Unreleased|{re.escape(ddpm.__version__)}\b)",
        (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M,
    )  # fmt: skip


def test_the_metadata_are_whole():
    for name in ("description", "readme", "license", "authors", "classifiers", "urls"):
        assert PROJECT[name], name
    assert all((ROOT / path).is_file() for path in (PROJECT["readme"], *PROJECT["license-files"]))


def test_the_commands_of_the_workflow_can_be_understood():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    lines = re.findall(r'bin/ddpm" (\w+) (.*)', text)
    assert {name for name, _ in lines} == {"train", "generate"}
    for name, words in lines:
        if name == "train":
            assert read_train_options(words.split()).config.steps == 20
        else:
            assert parse(COMMANDS[name][0], words.split(), f"ddpm {name}").n == 4
