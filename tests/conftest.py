"""What the tests share: a cache of their own, tiny settings, and the real data where they lie."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers, small tensors: threads slow them down

import pytest

from ddpm.config import Config, SampleConfig, TrainConfig, UNetConfig

# Files that take longest: where they come first, no worker is left with one at the end.
FIRST = (
    "test_troubleshooting.py", "test_visitors.py", "test_kills.py", "test_browser.py",
    "test_processes.py", "test_resume.py", "test_messages.py", "test_bounds.py", "test_claims.py",
    "test_train.py", "test_static_page.py", "test_written_files.py", "test_beginnings.py",
    "test_diffusers.py", "test_score.py", "test_plane.py", "test_onnx.py", "test_notebooks.py",
)  # fmt: skip
# Files that share what takes seconds to import or to fork from: one worker has all of a line.
TOGETHER = (
    ("test_troubleshooting.py", "test_kills.py", "test_processes.py"),
    ("test_visitors.py", "test_server.py", "test_middleware.py", "test_runs.py", "test_models.py"),
    ("test_onnx.py", "test_static_page.py"),
    ("test_diffusers.py", "test_against_diffusers.py", "test_samplers_against_diffusers.py"),
)  # fmt: skip
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: FIRST.index(n) if (n := item.path.name) in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """As `--dist loadfile`, but for TOGETHER."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FilesTogether(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return next((names[0] for names in TOGETHER if Path(file).name in names), file)

    return FilesTogether(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["DDPM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data():
    if not SHARED.is_dir():
        pytest.skip("the folder of real data, ../shared/data, is not here")
    return SHARED


@pytest.fixture
def shared(shared_data):
    return shared_data


@pytest.fixture
def generator():
    import torch  # not at the top: the process that hands out the tests has no need of it

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny():
    """The smallest run that has every part: two levels, attention, classes, guidance."""
    return Config(
        data="mnist5k",
        steps=4,
        held_out=8,
        unet=UNetConfig(channels=8, mults=(1, 2), blocks=1, attention=(8,), groups=4, patch=4),
        train=TrainConfig(batch=16, lr=1e-3, log_every=1, ema=0.99, warmup=2, decay=0.5),
        sample=SampleConfig(steps=2, guidance=2.0),
    )


@pytest.fixture(scope="session")
def tiny_dropout(tiny):
    return replace(tiny, unet=replace(tiny.unet, dropout=0.1), flip=True)


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """The run of `tiny`, at its end: to be read, not changed."""
    from ddpm import train

    path = tmp_path_factory.mktemp("trained") / "run"
    train(tiny, path)
    return path


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of that run, in a folder `run` of the test's own."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def known_cost(monkeypatch):
    """The doctor measures nothing, which takes seconds: test_doctor.py is where it does."""
    from ddpm.training.benchmark import Cost

    found = Cost(100.0, 500.0, 1_000_000)
    monkeypatch.setattr("ddpm.training.benchmark.measure_cost", lambda *_: found)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """A TorchScript feature network: means of patches, as floats."""
    import torch

    class Patches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x.float(), 8)

    path = str(tmp_path_factory.mktemp("features") / "patches.pt")
    torch.jit.script(Patches()).save(path)
    return path
