"""What the tests of scores share: small sets of real digits, and a stand-in for Inception."""

import pytest
import torch

from ddpm import ImageDataset, Samples, load_images
from ddpm.evaluation import features
from ddpm.evaluation.reference import load_reference


@pytest.fixture(scope="session")
def digits(shared_data):
    """1,000 digits to compare with, and the 10,000 test digits for the floor."""
    of = load_images("mnist5k")
    some = ImageDataset.from_array(of.images[::5], of.labels[::5], of.classes, "mnist5k")
    return load_reference(some, root=shared_data, held_out="mnist")


@pytest.fixture(scope="session")
def test_digits(digits):
    """Test digits from place `first` to `last`, as samples."""

    def some(first, last):
        of = digits.held_out
        return Samples(of.images[first:last], of.labels[first:last], of.classes)

    return some


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory):
    """A file of the Inception network with weights that were never trained."""
    fidelity = pytest.importorskip("torch_fidelity")
    torch.manual_seed(0)
    kind = fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(kind, "load_state_dict", lambda self, state: None)
        net = kind("inception", ["2048"], feature_extractor_weights_path="none")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture
def inception(random_inception, monkeypatch):
    """That file, under the hash that is trusted."""
    monkeypatch.setattr(features, "INCEPTION_HASH", features.file_hash(random_inception, 64))
    return str(random_inception)
