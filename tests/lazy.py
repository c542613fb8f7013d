"""Modules that are imported when they are first used: each of the processes that share the tests
collects all of them, and runs some."""

from importlib import import_module
from importlib.util import find_spec

import pytest


class Module:
    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(import_module(self._name), attribute)


def optional(name):
    """A module that may not be installed: without it, all of the file is skipped."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return Module(name)
