"""Scores: the nearer to real images the better, and what cannot be scored is refused at once."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import (
    Checkpoint,
    ImageDataset,
    Samples,
    UserError,
    build,
    evaluate,
    frechet_distance,
    load,
    save,
)
from ddpm.cli.main import main
from ddpm.config import DiffusionConfig, SampleConfig
from ddpm.evaluation import sampling
from ddpm.evaluation.features import FeatureExtractor, extract
from ddpm.evaluation.likelihood import held_out_likelihood
from ddpm.evaluation.reference import Reference, load_reference, subset
from ddpm.evaluation.report import read_report
from ddpm.evaluation.sampling import labels_as_in
from pictures import folder_of, photos

QUICK = SampleConfig(steps=2, guidance=1.0)


@pytest.fixture
def nothing_is_made(monkeypatch):
    monkeypatch.setattr(sampling, "generate", lambda *a, **k: pytest.fail("images were made"))


# ---- images ----------------------------------------------------------------------------------


def test_real_digits_are_at_the_floor(digits):
    held_out = digits.held_out
    index = subset(held_out, 500)
    real = Samples(held_out.images[index], held_out.labels[index], held_out.classes)
    score = evaluate(real, data=digits)
    assert score.distance == pytest.approx(score.floor)
    assert score.floor_n == 500
    assert score.class_accuracy > 0.98


def test_the_worse_the_digits_the_larger_the_distance(digits, test_digits):
    real, noise = test_digits(0, 200), torch.Generator().manual_seed(0)
    distances = []
    for amount in (0, 60, 120, 240):
        noisy = real.images + amount * torch.randn(real.images.shape, generator=noise)
        images = noisy.clamp(0, 255).to(torch.uint8)
        distances.append(evaluate(images, data=digits).distance)
    assert distances == sorted(distances)
    assert distances[1] > 1.2 * distances[0]


def test_class_accuracy_compares_labels_by_name(digits, test_digits):
    real = test_digits(0, 200)
    wrong = replace(real, labels=(real.labels + 1) % 10)
    assert evaluate(wrong, data=digits).class_accuracy < 0.02
    assert evaluate(replace(real, labels=None), data=digits).class_accuracy is None
    sevens = real.images[real.labels == 7]
    zeros = torch.zeros(len(sevens), dtype=torch.long)
    assert evaluate(Samples(sevens, zeros, ("7",)), data=digits).class_accuracy > 0.9
    assert evaluate(Samples(sevens, zeros, ("cat",)), data=digits).class_accuracy is None


def test_any_images_by_any_features(scripted, tmp_path):
    """The floor of a set without another split: some of it against the rest."""
    reference = load_reference(folder_of(photos(60), tmp_path / "real"), features=scripted)
    same = evaluate(photos(60), data=reference)
    assert same.distance == pytest.approx(0, abs=1e-6 * photos(60).float().var().item())
    assert same.floor_n == 30
    assert evaluate(255 - photos(60), data=reference).distance > same.distance + 1
    few = evaluate(photos(60)[:20], data=reference)
    assert few.floor_n == 20
    inside = torch.zeros(60, dtype=torch.bool)
    inside[subset(reference.images, 20)] = True
    some, rest = (
        extract(reference.extractor, photos(60)[part]).moments.gaussian()
        for part in (inside, ~inside)
    )
    assert few.floor == pytest.approx(frechet_distance(some, rest), rel=1e-6)


def test_images_of_every_form_have_the_same_score(scripted, tmp_path):
    reference = load_reference(folder_of(photos(40), tmp_path / "real"), features=scripted)
    made = photos(20, seed=1)
    array = made.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "made.npz", images=array)
    forms = [
        made, array, Samples(made, None, ()), ImageDataset.from_array(made),
        folder_of(made, tmp_path / "made"), tmp_path / "made.npz",
    ]  # fmt: skip
    scores = [evaluate(form, data=reference) for form in forms]
    assert len({score.distance for score in scores}) == 1
    assert len({score.protocol.sampling["fingerprint"] for score in scores}) == 1


def test_the_real_images_may_be_in_memory(scripted, tmp_path):
    folder, tensor = folder_of(photos(40), tmp_path / "real"), photos(40)
    forms = [folder, ImageDataset.from_array(tensor), tensor, tensor.permute(0, 2, 3, 1).numpy()]
    scores = [evaluate(photos(9, 1), data=real, features=scripted) for real in forms]
    assert len({score.distance for score in scores}) == 1
    held_out = [photos(20, 2), ImageDataset.from_array(photos(20, 2))]
    floors = {
        evaluate(photos(9, 1), data=tensor, held_out=other, features=scripted).floor
        for other in held_out
    }
    assert len(floors) == 1
    assert floors != {scores[0].floor}


def test_inception_scores_are_in_the_report(tmp_path, caplog):
    """All of them, and the same from cached features; by another network under that name."""
    pytest.importorskip("torch_fidelity")
    caplog.set_level("INFO")

    def means(images):
        features = torch.nn.functional.avg_pool2d(images.float(), 8).flatten(1)
        return features, features[:, :5] / 100

    extractor = FeatureExtractor("inception", "0", means, torch.device("cpu"))
    real = ImageDataset.from_array(photos(30))
    reference = Reference(real, "", None, real, None, extractor)
    score = evaluate(photos(10, 1), data=reference)
    numbers = (score.kid, score.kid_95, score.inception_score, score.precision, score.recall)
    assert all(isinstance(number, float) for number in numbers)
    assert "10 samples are few for 12 features" in caplog.text
    assert "FID" in str(score)
    assert evaluate(photos(10, 1), data=reference) == score
    with pytest.raises(UserError, match="too few samples, 9: inception needs 10"):
        evaluate(photos(9), data=reference)


@pytest.mark.long
def test_inception_scores_are_those_of_torch_fidelity(inception, tmp_path):
    import torch_fidelity

    real = folder_of(photos(40), tmp_path / "real")
    made = folder_of(photos(24, 1), tmp_path / "made")
    score = evaluate(made, data=real, features=inception)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(made), input2=str(real), cuda=False, fid=True, kid=True, isc=True, prc=True,
        kid_subset_size=12, feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=inception, verbose=False, cache=False,
    )  # fmt: skip
    assert score.distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert score.kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert score.inception_score == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert score.precision == pytest.approx(theirs["precision"])
    assert score.recall == pytest.approx(theirs["recall"])


@pytest.mark.parametrize("gray", ["made", "real", "other"])
def test_copies_are_found_among_gray_and_coloured_images(scripted, tmp_path, gray):
    sets = {
        name: photos(n, seed=seed, channels=1 if name == gray else 3)
        for seed, (name, n) in enumerate({"made": 10, "real": 30, "other": 20}.items())
    }
    score = evaluate(
        sets["made"], features=scripted, data=ImageDataset.from_array(sets["real"]),
        held_out=ImageDataset.from_array(sets["other"]), memorization=tmp_path / "near.png",
    )  # fmt: skip
    assert 0 <= score.memorization <= 1
    assert (tmp_path / "near.png").stat().st_size > 1000


@pytest.mark.parametrize("held_out", [False, True])
def test_copies_are_found(scripted, tmp_path, held_out):
    real = ImageDataset.from_array(photos(60))
    copied = torch.cat([photos(60)[:10], photos(10, seed=2)])
    other = ImageDataset.from_array(photos(40, seed=3)) if held_out else None
    score = evaluate(copied, data=real, features=scripted, memorization=True, held_out=other)
    assert score.memorization >= 0.5
    assert score.nearest.samples[0] < 0.1 < score.nearest.real[0]
    assert not list(tmp_path.glob("*.png"))


def test_options_of_networks_are_refused_for_images(scripted, tmp_path):
    real = ImageDataset.from_array(photos(9))
    for name, value in (("n", 10), ("settings", QUICK), ("likelihood", 2)):
        with pytest.raises(UserError, match=f"^{name} is for a network"):
            evaluate(photos(6), data=real, features=scripted, **{name: value})
    with pytest.raises(UserError, match="which real images are those of array to be compared"):
        evaluate(photos(6), features=scripted)
    with pytest.raises(UserError, match=r"end it in \.png"):
        evaluate(photos(6), data=real, features=scripted, memorization="near.jpg")


# ---- networks --------------------------------------------------------------------------------


def test_a_network_is_scored_with_its_protocol(digits):
    settings, stages = SampleConfig(steps=3, guidance=2.0), []
    score = evaluate(
        "mnist", data=digits, n=20, seed=5, settings=settings, batch=8,
        progress=lambda *stage: stages.append(stage),
    )  # fmt: skip
    assert score.protocol.n == 20
    assert score.protocol.sampling["nfe"] == 6
    assert score.protocol.sampling["seed"] == 5
    assert score.class_accuracy is not None
    assert ("sampling steps", 9, 9) in stages
    without = evaluate("mnist", data=digits, n=20, settings=replace(settings, guidance=0.0))
    assert without.class_accuracy is None
    assert without.protocol.sampling["nfe"] == 3


@pytest.fixture
def network(tiny):
    """An untrained network of digits whose chain has 20 steps."""
    config = replace(tiny, diffusion=DiffusionConfig(T=20), flip=True)
    data = load("mnist").data
    torch.manual_seed(0)
    net, diffusion = build(config, data)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.05)
    return Checkpoint(net.eval().requires_grad_(False), diffusion, config, data, 9, 99)


def test_a_network_of_cropped_images_is_compared_with_images_in_memory(network, scripted):
    cropped = replace(network, config=replace(network.config, size=(16,)))
    side = network.data.height
    score = evaluate(
        cropped, data=photos(20, side=side, channels=network.data.channels), n=4,
        settings=QUICK, features=scripted,
    )  # fmt: skip
    assert score.protocol.n == 4


def test_the_command_prints_what_python_returns(network, shared_data, tmp_path, capsys):
    """With all that can be asked for."""
    c, path = network, tmp_path / "net.safetensors"
    save(path, c.net, c.config, c.data, c.step, c.images_seen)
    words = [
        "evaluate", str(path), "--n", "20", "--seed", "3", "--steps", "4", "--data", "mnist5k",
        "--held-out", "mnist", "--root", str(shared_data), "--likelihood", "2",
        "--memorization", str(tmp_path / "near.png"), "--out", str(tmp_path / "score.json"),
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    report = evaluate(
        path, n=20, seed=3, settings=replace(c.config.sample, steps=4), data="mnist5k",
        held_out="mnist", root=shared_data, likelihood=2, memorization=tmp_path / "again.png",
    )  # fmt: skip
    assert printed.startswith(f"{report}\n")
    assert "bits/dim" in printed
    assert "memorization" in printed
    assert read_report(tmp_path / "score.json") == report
    assert (tmp_path / "near.png").read_bytes() == (tmp_path / "again.png").read_bytes()


@pytest.mark.long
def test_the_bundled_weights_are_good(shared_data):
    score = evaluate("mnist", n=500, root=shared_data)
    assert score.class_accuracy >= 0.99
    assert score.distance < 2.5 * score.floor


def test_a_guide_is_in_the_protocol(network, digits):
    guide = replace(network, net=copy.deepcopy(network.net))
    torch.nn.init.zeros_(next(guide.net.parameters()))
    score = evaluate(network, data=digits, n=4, guide=guide)
    assert score.protocol.sampling["guide"] == guide.weights_hash()
    assert score.protocol.sampling["nfe"] == 2 * network.config.sample.steps
    with pytest.raises(UserError, match="the guide does not have the"):
        evaluate(network, data=digits, n=4, guide="cifar10")


def test_bits_per_dim_do_not_depend_on_the_batch(network, digits):
    stages = []
    bound = held_out_likelihood(
        network, digits, 3, batch=1, progress=lambda *stage: stages.append(stage)
    )
    assert stages == [("bits/dim", n, 3) for n in (1, 2, 3)]
    assert bound.n == 3
    assert bound.error < bound.bits
    assert held_out_likelihood(network, digits, 3).bits == pytest.approx(bound.bits, rel=1e-3)
    assert held_out_likelihood(network, digits, 1).error is None
    larger = SampleConfig(variance="beta")
    assert held_out_likelihood(network, digits, 3, larger).variance == "beta"


@pytest.mark.long
def test_bits_per_dim_of_the_bundled_weights(digits):
    """An untrained network's are far more."""
    checkpoint = load("mnist")
    bound = held_out_likelihood(checkpoint, digits, 2)
    assert 0.5 < bound.bits < 4
    torch.manual_seed(0)
    fresh = build(checkpoint.config, checkpoint.data)[0].eval()
    assert held_out_likelihood(replace(checkpoint, net=fresh), digits, 2).bits > 1.5 * bound.bits


def test_held_out_images_that_do_not_fit_are_refused_before_the_work(
    digits, shared_data, nothing_is_made
):
    def held_out(**changes):
        return replace(digits, unseen=replace(digits.unseen, **changes))

    colour = digits.unseen.images[:9].expand(-1, 3, -1, -1)
    for reference, says in (
        (replace(digits, unseen=None), "name them with --held-out"),
        (held_out(images=colour), "not of the network's shape"),
        (held_out(classes=("a",) * 10), "other classes than the network"),
    ):
        with pytest.raises(UserError, match=says):
            evaluate("mnist", data=reference, n=20, likelihood=2)


def test_what_cannot_be_scored_is_refused_before_the_work(digits, nothing_is_made, scripted):
    with pytest.raises(UserError, match="digit-net takes images of 28x28"):
        evaluate("cifar10", data=digits, n=20)
    other = ImageDataset.from_array(photos(9))
    with pytest.raises(UserError, match="28x28 in 1 channel, and the reference's 16x16"):
        evaluate("mnist", data=other, features=scripted, n=20)
    with pytest.raises(UserError, match="there is no checkpoint at nowhere"):
        evaluate("nowhere", data=digits)


def test_scores_of_other_protocols_are_refused_before_the_work(digits, monkeypatch):
    score = evaluate("mnist", data=digits, n=20, settings=QUICK)
    assert evaluate("mnist", data=digits, n=20, settings=QUICK, against=score) == score
    monkeypatch.setattr(sampling, "generate", lambda *a, **k: pytest.fail("images were made"))
    with pytest.raises(UserError, match="steps is 3 here and 2 there"):
        evaluate("mnist", data=digits, n=20, settings=replace(QUICK, steps=3), against=score)
    with pytest.raises(UserError, match="n is 30 here and 20 there"):
        evaluate("mnist", data=digits, n=30, settings=QUICK, against=score)


def test_notes_before_the_work(digits, caplog):
    caplog.set_level("INFO")
    evaluate("mnist", data=digits, n=20, settings=QUICK, memorization=True)
    assert "the network was not trained on mnist5k" in caplog.text
    assert "20 samples are few for 128 features" in caplog.text


def test_samples_have_the_classes_of_the_images(network, digits):
    """Where some are far more frequent than others; else each in turn."""
    data, names = digits.training, network.data.classes
    assert data.classes == names
    assert labels_as_in(data, names, 100) == []
    assert labels_as_in(data, ("a", "b"), 100) == []
    rare = torch.cat([torch.where(data.labels == 3)[0][:5], torch.where(data.labels == 8)[0][:45]])
    uneven = replace(data, images=data.images[rare], labels=data.labels[rare])
    labels = labels_as_in(uneven, names, 20)
    assert (labels.count("3"), labels.count("8")) == (2, 18)
    assert labels.index("3") < 10  # and not all at one end
    report = evaluate(network, data=uneven, n=10, settings=QUICK)
    assert report.protocol.sampling["classes"] == "as frequent as in the data"
    assert "classes" not in evaluate(network, data=digits, n=4, settings=QUICK).protocol.sampling
