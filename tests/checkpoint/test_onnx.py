"""Networks as ONNX: onnxruntime computes what torch does, for any number of images."""

import json

import pytest
import torch

from ddpm import UserError, load
from ddpm.checkpoint import onnx as exporting
from ddpm.checkpoint.checkpoint import PRETRAINED, Checkpoint, build
from ddpm.cli.main import main
from ddpm.config import Config, DataInfo, UNetConfig

SMALL = UNetConfig(channels=8, mults=(1, 2), blocks=1, attention=(2,), groups=4, patch=2, fine=4)


def runtime():
    for name in exporting.NEEDED[:2]:
        pytest.importorskip(name, reason="pip install 'ddpm-from-scratch[onnx]'")
    return pytest.importorskip("onnxruntime", reason="pip install 'ddpm-from-scratch[onnx]'")


def random_checkpoint(unet=SMALL, classes=(), side=9):
    torch.manual_seed(0)
    config = Config(unet=unet)
    data = DataInfo("noise", 10, 3, side, side, tuple(classes), "f")
    net, diffusion = build(config, data)
    for p in net.eval().requires_grad_(False).parameters():
        p.normal_(0, 0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    return Checkpoint(net, diffusion, config, data, 7, 70)


@torch.inference_mode()
def assert_same(checkpoint, path, n):
    session = runtime().InferenceSession(path, providers=["CPUExecutionProvider"])
    x, t = torch.randn(n, *checkpoint.data.shape), torch.randint(1, 1001, (n,))
    given = {"x_t": x, "t": t}
    if checkpoint.conditional:
        given["y"] = torch.arange(n) % (len(checkpoint.data.classes) + 1)
    (theirs,) = session.run(["out"], {name: value.numpy() for name, value in given.items()})
    ours = checkpoint.net(*given.values())
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def programs():
    """What torch has exported so far, by the classes of the network."""
    return {}


@pytest.fixture
def write(programs, monkeypatch):
    """Write a network of these classes, and return it: torch, which is slow, exports it once."""
    runtime()
    honest = torch.onnx.export

    def write(classes, path):
        def export(*args, **options):
            if classes not in programs:
                programs[classes] = honest(*args, **options)
            return programs[classes]

        monkeypatch.setattr(torch.onnx, "export", export)
        checkpoint = random_checkpoint(classes=classes)
        exporting.write_onnx(checkpoint, path)
        return checkpoint

    return write


@pytest.mark.parametrize("classes", [pytest.param((), marks=pytest.mark.long), ("a", "b")])
def test_any_batch_of_any_network(classes, write, tmp_path):
    """Folded pixels, a stage at full resolution, odd sides, attention, with classes or without."""
    path = tmp_path / "x.onnx"
    checkpoint = write(classes, path)
    for n in (1, 2, 5):
        assert_same(checkpoint, path, n)
    props = runtime().InferenceSession(path).get_modelmeta().custom_metadata_map
    header = json.loads(props["ddpm"])
    assert header["data"]["classes"] == list(classes)
    assert header["config"]["diffusion"]["target"] == "v"


@pytest.mark.long
@pytest.mark.parametrize("name", PRETRAINED)
def test_bundled_weights(name, tmp_path):
    runtime()
    assert main(["convert", name, str(tmp_path / "x.onnx")]) == 0
    for n in (1, 3):
        assert_same(load(name), tmp_path / "x.onnx", n)


def test_a_file_that_computes_something_else_is_not_left(write, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)  # which rounding is beyond
    with pytest.raises(UserError, match="computes something else than torch"):
        write(("a", "b"), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "NEEDED", ("onnx_of_nowhere",))
    assert main(["convert", "mnist", str(tmp_path / "x.onnx")]) == 1
    said = capsys.readouterr().err
    assert 'ONNX needs onnx_of_nowhere: pip install "ddpm-from-scratch[onnx]"' in said
    assert not list(tmp_path.iterdir())
