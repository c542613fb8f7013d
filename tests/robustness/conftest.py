"""Where files are damaged: bounded memory, no network, and folders that go with each case."""

import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """No room for a fault to take the machine down with it, no network, a cache of its own."""
    resource = pytest.importorskip("resource", reason="this system does not bound memory")
    now, pages = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket.socket, "connect", no_network)
        if pages.exists():
            used = int(pages.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**30, now[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, now)


def no_network(*args):
    raise OSError("there is no network in this test")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Makes a folder for each case, which goes with it, and so does what was cached."""

    @contextmanager
    def new():
        with TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
            yield Path(folder)
        shutil.rmtree(os.environ["DDPM_CACHE"], ignore_errors=True)

    return new
