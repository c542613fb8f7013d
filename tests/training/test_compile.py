"""Training with a compiled network."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from ddpm import load, train


@pytest.fixture(params=["eager", pytest.param("inductor", marks=pytest.mark.long)])
def compiler(request, monkeypatch):
    """Trace the network without compiling it; in the long run compile it, which takes minutes."""
    if request.param == "inductor" and not shutil.which("g++"):
        pytest.skip("compiling for a CPU needs g++")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
def test_a_compiled_run_goes_on_uncompiled_and_back(tiny, tmp_path):
    tiny = replace(tiny, unet=replace(tiny.unet, mults=(1,), attention=()))
    tiny = replace(tiny, train=replace(tiny.train, augment=0.5))
    compiled = replace(tiny, train=replace(tiny.train, compile=True, sample_minutes=1e-5))
    counters = torch._dynamo.utils.counters
    counters.clear()
    for name, config in (("plain", tiny), ("run", compiled)):
        train(config, tmp_path / name)
    # The network, though grids are of other batches; and what was tried before it.
    assert counters["stats"]["unique_graphs"] == 2
    a, b = (load_file(tmp_path / n / "state" / "state.safetensors") for n in ("plain", "run"))
    assert a.keys() == b.keys()  # the names of the weights are those of the plain network
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=2e-3)
    for steps, config in ((6, tiny), (8, compiled)):
        assert train(replace(config, steps=steps), tmp_path / "run", resume=True).step == steps
    assert load(tmp_path / "run").config.train.compile


def test_where_nothing_can_be_compiled_it_trains_without(tiny, tmp_path, monkeypatch, caplog):
    def without_compiler(*args, **kwargs):
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: no C++ compiler")

    monkeypatch.setattr(torch, "compile", without_compiler)
    caplog.set_level("INFO")
    asked = replace(tiny, train=replace(tiny.train, compile=True))
    assert train(asked, tmp_path / "run").finished
    assert "torch.compile does not work here (InvalidCxxCompiler: no C++ compiler)" in caplog.text
