"""Feature networks: by name or from a file, or refused; and the features of a set."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from ddpm import UserError
from ddpm.evaluation import features
from ddpm.evaluation.features import extract, feature_file, load_feature_extractor
from pictures import photos

SHAPE = (3, 16, 16)


def test_each_kind_of_images_has_its_network(monkeypatch):
    assert load_feature_extractor(None, (1, 28, 28)).name == "digit-net"
    monkeypatch.setattr(features, "inception_weights", lambda: pytest.fail("it was sought"))
    with pytest.raises(pytest.fail.Exception, match="it was sought"):
        load_feature_extractor(None, (3, 28, 28))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (lambda x: torch.conv2d(x, torch.ones(4, 3, 3, 3)), "type"),
        (lambda x: x.float().flatten(1) / 0 * 0, "not finite"),
        (lambda x: x.float().flatten()[None], "it gave"),
    ],
)
def test_torchscript_that_gives_no_features_is_refused(net, says, tmp_path):
    path = tmp_path / "inception"  # a name does not make it Inception
    torch.jit.trace(net, torch.rand(2, *SHAPE)).save(str(path))
    with pytest.raises(UserError, match=f"does not take uint8 images.*{says}"):
        load_feature_extractor(str(path), SHAPE)


def test_files_that_hold_no_network_are_refused(tmp_path):
    for name, says in (
        ("x.safetensors", "holds neither"),
        ("x.pt", "is not TorchScript"),
        ("nothing", "there is no feature network"),
    ):
        path = tmp_path / name
        if name != "nothing":
            path.write_bytes(b"x")
        with pytest.raises(UserError, match=says):
            load_feature_extractor(str(path), SHAPE)


def test_another_inception_is_refused(tmp_path, monkeypatch):
    """Even one whose hash begins in the same way: eight digits are found in minutes."""
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "inception.pth"
    path.write_bytes(b"not it")
    monkeypatch.setattr(features, "INCEPTION_HASH", features.file_hash(path) + "0" * 48)
    with pytest.raises(UserError, match="is not the Inception network that scores are published"):
        load_feature_extractor(str(path), SHAPE)


def test_without_the_network_no_other_takes_its_place(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")

    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"could not be downloaded.*no network.*--features"):
        load_feature_extractor(None, SHAPE)


def test_inception_sees_gray_images_as_rgb(inception):
    net = load_feature_extractor(inception, SHAPE)
    gray = photos(2, channels=1)
    torch.testing.assert_close(net(gray)[0], net(gray.expand(-1, 3, -1, -1))[0])


def test_the_features_of_a_set(scripted, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 7)
    net, images, stages = load_feature_extractor(scripted, SHAPE), photos(20), []
    with feature_file() as file:
        found = extract(net, images, "photos", file=file, progress=lambda *s: stages.append(s))
    expected = net(images)[0]
    torch.testing.assert_close(found.features, expected)
    np.testing.assert_allclose(found.moments.sum, expected.double().sum(0), rtol=1e-6)
    assert stages == [("photos", n, 20) for n in (7, 14, 20)]
    assert extract(net, images).features is None


def test_features_that_are_not_finite_are_named(tmp_path):
    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (10.0 - x.float().flatten(1)[:, :4]).sqrt()

    torch.jit.script(Root()).save(tmp_path / "root.pt")
    net = load_feature_extractor(str(tmp_path / "root.pt"), SHAPE)
    with pytest.raises(UserError, match=r"root.pt gives features that are not finite for samples"):
        extract(net, photos(6), "samples")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_no_room_for_features(scripted, monkeypatch):
    """/dev/full stands for a disk without room."""
    full = lambda **k: Path("/dev/full").open("w+b")  # noqa: E731, SIM115
    monkeypatch.setattr(features, "TemporaryFile", full)
    net = load_feature_extractor(scripted, SHAPE)
    with pytest.raises(UserError, match=r"No space left.*DDPM_CACHE"), feature_file() as file:
        extract(net, photos(12), file=file)
