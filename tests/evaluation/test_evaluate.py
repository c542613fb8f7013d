"""Scores of digits: what is near is near, what was asked is counted, all of it written down."""

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from ddpm import Samples, UserError, build, frechet_distance, load, train
from ddpm.cli.main import main
from ddpm.config import SampleConfig
from ddpm.evaluation import features
from ddpm.evaluation.digit_net import CLASSES, digit_net
from ddpm.evaluation.evaluate import evaluate, likelihood
from ddpm.evaluation.reference import Reference, kernel_distance
from ddpm.evaluation.report import ratio, read_report
from ddpm.utils.images import to_pil
from pictures import folder_of, photos


@pytest.fixture(scope="module")
def reference(shared_data):
    return Reference("mnist", root=shared_data)


def of_test(reference, first, last):
    return Samples(
        reference.held_out.images[first:last], reference.held_out.labels[first:last], CLASSES
    )


def test_the_digit_net_is_small_and_right_on_digits_it_has_not_seen(reference):
    assert sum(p.numel() for p in digit_net().parameters()) < 250_000
    found = reference.extract(reference.held_out.images, logits=True).logits.argmax(1)
    assert (found == reference.held_out.labels).float().mean() >= 0.995


def test_real_digits_are_at_the_floor(reference):
    score = reference.score(of_test(reference, 0, 1000), {})
    assert score.distance == pytest.approx(score.floor)
    assert score.floor_n == 1000
    assert score.as_asked > 0.98


def test_the_worse_the_digits_the_larger_the_distance(reference):
    real, noise = of_test(reference, 0, 1000), torch.Generator().manual_seed(0)
    distances = []
    for amount in (0, 60, 120, 240):
        noisy = real.images + amount * torch.randn(real.images.shape, generator=noise)
        images = noisy.clamp(0, 255).to(torch.uint8)
        distances.append(reference.score(replace(real, images=images), {}).distance)
    assert distances == sorted(distances)
    assert distances[1] > 1.2 * distances[0]


def test_as_asked_counts_labels(reference):
    real = of_test(reference, 0, 500)
    wrong = replace(real, labels=(real.labels + 1) % 10)
    assert reference.score(wrong, {}).as_asked < 0.02
    assert reference.score(replace(real, labels=None), {}).as_asked is None
    sevens = real.images[real.labels == 7]
    few = Samples(sevens, torch.zeros(len(sevens), dtype=torch.long), ("7",))
    assert reference.score(few, {}).as_asked > 0.9


def test_a_network_is_scored_with_its_protocol(reference):
    checkpoint = load("mnist")
    settings = SampleConfig(steps=3, guidance=2.0)
    score = evaluate(checkpoint, reference, 20, seed=5, settings=settings, batch=8)
    assert score.protocol.n == 20
    assert score.protocol.sampling["nfe"] == 6
    assert score.protocol.sampling["seed"] == 5
    assert score.as_asked is not None
    without = evaluate(checkpoint, reference, 20, settings=replace(settings, guidance=0.0))
    assert without.as_asked is None
    assert without.protocol.sampling["nfe"] == 3


def test_the_bundled_weights_are_good(reference):
    score = evaluate(load("mnist"), reference, 500)
    assert score.as_asked >= 0.99
    assert score.distance < 2.5 * score.floor


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (3, 28, 28)])
def test_what_is_not_digits_is_refused(reference, shape):
    images = torch.zeros(4, *shape, dtype=torch.uint8)
    with pytest.raises(UserError, match="digit-net sees images of 28x28 in 1 channel, and"):
        reference.score(Samples(images, None, ()), {})


def test_classes_that_the_eyes_do_not_know_are_not_counted(reference):
    images = reference.held_out.images[:20]
    other = Samples(images, torch.zeros(20, dtype=torch.long), ("cat", "dog"))
    assert reference.score(other, {}).as_asked is None


def test_the_command_scores_files(reference, shared_data, tmp_path, capsys):
    real = of_test(reference, 0, 300)
    np.savez(tmp_path / "x.npz", images=real.images[:, 0].numpy(), labels=real.labels.numpy())
    words = ["evaluate", str(tmp_path / "x.npz"), "--root", str(shared_data)]
    assert main([*words, "--out", str(tmp_path / "score.json")]) == 0
    text = capsys.readouterr().out
    assert "1.00 times the floor" in text
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["as_asked"] > 0.98
    assert score["protocol"]["n"] == 300
    assert main([*words, "--out", str(tmp_path / "score.json")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "score.txt")]) == 1
    assert "end it in .json" in capsys.readouterr().err


def test_the_command_scores_the_bundled_weights(shared_data, capsys):
    assert main(["evaluate", "--n", "20", "--steps", "4", "--root", str(shared_data)]) == 0
    text = capsys.readouterr().out
    for word in ("Fréchet distance", "floor", "as asked", "20 samples", "digit-net", "nfe"):
        assert word in text
    assert main(["evaluate", "nowhere", "--root", str(shared_data)]) == 1
    assert "there is no checkpoint at nowhere" in capsys.readouterr().err


def test_the_command_compares_what_was_made_alike(shared_data, tmp_path, monkeypatch, capsys):
    words = ["evaluate", "mnist", "--n", "20", "--root", str(shared_data)]
    score = str(tmp_path / "a.json")
    assert main([*words, "--steps", "2", "--out", score]) == 0
    assert main([*words, "--steps", "2", "--against", score]) == 0
    assert "1.000 times the distance" in capsys.readouterr().out
    module = sys.modules["ddpm.generation.generate"]  # `ddpm.generate` is the function
    monkeypatch.setattr(module, "generate", lambda *a, **k: pytest.fail("it was made"))
    assert main([*words, "--steps", "3", "--against", score]) == 1
    assert "not to be compared: steps is 3 here, 2 there" in capsys.readouterr().err


def test_one_digit_is_no_set(reference):
    with pytest.raises(UserError, match="too few samples, 1: digit-net needs 2"):
        reference.score(of_test(reference, 0, 1), {})


def test_the_reference_and_the_floor_are_kept(reference, shared_data, monkeypatch):
    floor = reference.floor(100)
    monkeypatch.setattr(Reference, "see", lambda *a: pytest.fail("computed again"))
    again = Reference("mnist", root=shared_data)
    np.testing.assert_array_equal(again.stats.moments.sum, reference.stats.moments.sum)
    assert again.floor(100) == reference.floor(100) == floor


def test_what_was_learned_is_not_held_out(reference, shared_data):
    """Whatever split the samples are held against, or names the floor."""
    assert reference.training is reference.real
    assert reference.unseen is reference.held_out
    other = Reference("mnist", root=shared_data, split="test")
    assert other.training.fingerprint == reference.real.fingerprint
    assert other.unseen.fingerprint == reference.held_out.fingerprint
    small = Reference("mnist5k", root=shared_data, held_out="mnist")
    assert small.held_out.fingerprint == reference.held_out.fingerprint
    assert small.unseen is small.held_out
    with pytest.raises(UserError, match="the very images of mnist"):
        Reference("mnist", root=shared_data, split="test", held_out="mnist")
    assert other.protocol(100, {}).held_out.split()[-1] == reference.real.fingerprint[:16]


def test_a_damaged_reference_is_made_again(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path))
    first = Reference("mnist", root=shared_data, split="test").stats
    (kept,) = tmp_path.glob("reference-*")
    kept.write_bytes(b"torn")
    again = Reference("mnist", root=shared_data, split="test").stats
    np.testing.assert_allclose(again.moments.outer, first.moments.outer)


def test_only_scores_that_were_made_alike_are_compared(reference, tmp_path):
    worse = replace(of_test(reference, 0, 300), images=of_test(reference, 0, 300).images // 2)
    a, b = (
        reference.score(worse, {"file": "a"}),
        reference.score(of_test(reference, 0, 300), {"file": "b"}),
    )
    assert ratio(a, b) == pytest.approx(a.distance / b.distance)
    assert ratio(a, b) > 1
    with pytest.raises(UserError, match="n is 300 here, 200 there"):
        ratio(a, reference.score(of_test(reference, 0, 200), {}))
    with pytest.raises(UserError, match="features is"):
        ratio(a, replace(b, protocol=replace(b.protocol, features="inception 0")))
    with pytest.raises(UserError, match="reference is"):
        ratio(a, replace(b, protocol=replace(b.protocol, reference="others")))
    weak = {"network": "x", "images": 1, "steps": 9, "guidance": 1.0, "seed": 0}
    a, b = (replace(x, protocol=replace(x.protocol, sampling=weak)) for x in (a, b))
    better = replace(
        b, protocol=replace(b.protocol, sampling={**weak, "network": "y", "images": 2})
    )
    assert ratio(a, better) > 1
    for name, value in (("steps", 10), ("guidance", 3.0), ("seed", 1)):
        other = replace(b, protocol=replace(b.protocol, sampling={**weak, name: value}))
        with pytest.raises(UserError, match=f"{name} is {weak[name]} here, {value} there"):
            ratio(a, other)
    a.save(tmp_path / "a.json")
    assert read_report(tmp_path / "a.json") == a
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(UserError, match=r"b\.json"):
        read_report(tmp_path / "b.json")


# ---- images that are not digits --------------------------------------------------------------


def test_any_images_by_any_features(scripted, tmp_path):
    """The floor of a set without another split: some of it against the rest."""
    reference = Reference(folder_of(photos(60), tmp_path / "real"), features=scripted)
    same = reference.score(Samples(photos(60), None, ()), {})
    assert same.distance == pytest.approx(0, abs=1e-6 * photos(60).float().var().item())
    assert same.floor_n == 30
    some, rest = (
        reference.extract(photos(60)[::3][:20]),
        reference.extract(photos(60)[torch.arange(60) % 3 > 0]),
    )
    floor, n = reference.floor(20)
    assert n == 20
    assert floor == pytest.approx(
        frechet_distance(some.moments.gaussian(), rest.moments.gaussian()), rel=1e-6
    )
    assert reference.score(Samples(255 - photos(60), None, ()), {}).distance > same.distance + 1


def by_class(n, path):
    """n images in ten folders, each class in a level of gray of its own."""
    for i in range(n):
        folder = path / f"{10 * i // n}"
        folder.mkdir(parents=True, exist_ok=True)
        gray = 25 * (10 * i // n)
        to_pil(torch.full((3, 16, 16), gray, dtype=torch.uint8)).save(folder / f"{i:03}.png")
    return path


@pytest.mark.parametrize("n", [10, 30, 45])
@pytest.mark.parametrize("held_out", [False, True])
def test_a_floor_has_all_classes_alike(scripted, tmp_path, n, held_out):
    """Whatever n is: a folder's images lie class by class."""
    other = by_class(90, tmp_path / "other") if held_out else None
    reference = Reference(by_class(100, tmp_path / "real"), features=scripted, held_out=other)
    labels = reference.spare.labels[reference.places(reference.spare, n)]
    counts = labels.bincount(minlength=10)
    assert len(labels) == n
    assert counts.max() - counts.min() <= 1
    part = reference.extract(reference.spare.images[reference.places(reference.spare, n)])
    assert reference.floor_part(n).n == n
    np.testing.assert_allclose(reference.floor_part(n).sum, part.moments.sum)


def test_what_is_no_number_is_named(tmp_path):
    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (10.0 - x.float().flatten(1)[:, :4]).sqrt()

    torch.jit.script(Root()).save(tmp_path / "root.pt")
    reference = Reference(
        folder_of(photos(10), tmp_path / "real"), features=str(tmp_path / "root.pt")
    )
    with pytest.raises(UserError, match=r"root.pt saw something that is no number in the samples"):
        reference.score(Samples(photos(6, 1), None, ()), {})


def test_a_distance_or_a_floor_of_nothing(reference):
    real = of_test(reference, 0, 300)
    score = reference.score(real, {})
    assert "times the floor" in score.text()
    assert "times the floor" not in replace(score, floor=0.0).text()
    with pytest.raises(UserError, match="distance is 0"):
        ratio(score, replace(score, distance=0.0))


def test_files_of_any_kind_give_the_same_score(scripted, tmp_path):
    reference = Reference(folder_of(photos(40), tmp_path / "real"), features=scripted)
    made = photos(20, seed=1)
    folder_of(made, tmp_path / "made")
    np.savez(tmp_path / "made.npz", images=made.permute(0, 2, 3, 1).numpy())
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for png in sorted((tmp_path / "made").iterdir()):
            file.write(png, png.name)
    scores = [reference.score(Samples(made, None, ()), {})]
    for name in ("made", "made.npz", "made.zip"):
        words = ["evaluate", str(tmp_path / name), "--data", str(tmp_path / "real")]
        words += ["--features", scripted, "--out", str(tmp_path / f"{name}.json")]
        assert main(words) == 0
        scores.append(read_report(tmp_path / f"{name}.json"))
    assert len({score.distance for score in scores}) == 1


def test_images_larger_than_training_takes_are_scored_as_they_are(scripted, tmp_path):
    made, real = photos(20, seed=1, side=136), folder_of(photos(24, side=136), tmp_path / "real")
    np.savez(tmp_path / "made.npz", images=made.permute(0, 2, 3, 1).numpy())
    np.savez(tmp_path / "real.npz", images=photos(24, side=136).permute(0, 2, 3, 1).numpy())
    scores = []
    for what in (folder_of(made, tmp_path / "made"), tmp_path / "made.npz"):
        words = ["evaluate", str(what), "--data", str(tmp_path / "real.npz"), "--features"]
        assert main([*words, scripted, "--out", f"{what}.json"]) == 0
        scores.append(read_report(Path(f"{what}.json")))
    assert scores[0].distance == scores[1].distance
    words = ["evaluate", str(tmp_path / "made"), "--data", str(real), "--features", scripted]
    assert main([*words, "--size", "136"]) == 0


def test_real_images_are_resized_as_for_training(scripted, tmp_path, capsys, tiny):
    real = folder_of(photos(40, side=24), tmp_path / "real")
    train(replace(tiny, data=str(real), size=(16,), steps=1, held_out=0), tmp_path / "run")
    words = ["evaluate", str(tmp_path / "run"), "--features", scripted, "--n", "4"]
    assert main(words) == 0
    assert "floor" in capsys.readouterr().out
    assert main([*words, "--size", "24"]) == 1
    assert "16x16 in 3 channels, and the reference's 24x24" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (lambda x: torch.conv2d(x, torch.ones(4, 3, 3, 3)), "type"),
        (lambda x: x.float().flatten(1) / 0 * 0, "not finite"),
        (lambda x: x.float().flatten()[None], "it gave"),
    ],
)
def test_features_that_are_none_are_named(net, says, tmp_path):
    path = tmp_path / "inception"  # a name that makes it no Inception
    torch.jit.trace(net, torch.rand(2, 3, 16, 16)).save(str(path))
    with pytest.raises(UserError, match=f"does not take uint8 images.*{says}"):
        Reference(folder_of(photos(10), tmp_path / "real"), features=str(path))


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """The Inception network with weights that were never trained, under a hash of its own."""
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
def trusted(random_inception, monkeypatch):
    monkeypatch.setattr(features, "INCEPTION_HASH", features.file_hash(random_inception, 64))
    return str(random_inception)


def test_inception_scores_are_those_of_torch_fidelity(trusted, tmp_path):
    import torch_fidelity

    real, made = (
        folder_of(photos(40), tmp_path / "real"),
        folder_of(photos(24, 1), tmp_path / "made"),
    )
    reference = Reference(real, features=trusted)
    score = reference.score(Samples(photos(24, 1), None, ()), {})
    theirs = torch_fidelity.calculate_metrics(
        input1=str(made), input2=str(real), cuda=False, fid=True, kid=True, isc=True, prc=True,
        kid_subset_size=12, feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=trusted, verbose=False, cache=False,
    )  # fmt: skip
    assert score.distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert score.kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert score.inception_score == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert score.precision == pytest.approx(theirs["precision"])
    assert score.recall == pytest.approx(theirs["recall"])
    assert "FID" in score.text()
    again = Reference(real, features=trusted).score(Samples(photos(24, 1), None, ()), {})
    assert again == score  # the reference came from the cache


def test_the_interval_of_kid_covers_it():
    """Of draws from two Gaussians, against the distance of large sets of both."""
    pytest.importorskip("torch_fidelity")
    g = torch.Generator().manual_seed(0)

    def draw(n, shift):
        return torch.randn(n, 16, generator=g) + shift

    real = draw(4000, 0.0)
    truth, _ = kernel_distance(draw(4000, 0.25), real)
    for n in (60, 400):
        intervals = [kernel_distance(draw(n, 0.25), real) for _ in range(20)]
        assert all(half > 0 for _, half in intervals)
        assert sum(abs(mean - truth) <= half for mean, half in intervals) >= 16
        spread = torch.tensor([mean for mean, _ in intervals]).std()
        assert torch.tensor([half for _, half in intervals]).mean() < 2 * 1.96 * spread


def test_tight_copies_are_precise_and_recall_little(trusted, tmp_path):
    """Whichever of its arguments torch-fidelity takes for the real ones."""
    reference = Reference(folder_of(photos(40), tmp_path / "real"), features=trusted)
    copies = reference.real.images[:2].repeat_interleave(10, 0)
    copies[:, 0, 0, 0] = torch.arange(20)
    score = reference.score(Samples(copies, None, ()), {})
    assert score.precision > 0.9
    assert score.recall < 0.3


def test_inception_needs_ten(trusted, tmp_path):
    reference = Reference(folder_of(photos(12), tmp_path / "real"), features=trusted)
    with pytest.raises(UserError, match="too few samples, 9: inception needs 10"):
        reference.score(Samples(photos(9), None, ()), {})


def test_gray_is_seen_as_rgb(trusted, tmp_path):
    gray = photos(12, channels=1)
    colour = Reference(folder_of(photos(12), tmp_path / "real"), features=trusted)
    assert colour.score(Samples(gray, None, ()), {}).distance == pytest.approx(
        colour.score(Samples(gray.expand(-1, 3, -1, -1), None, ()), {}).distance
    )


def test_another_inception_is_refused(tmp_path, monkeypatch):
    """Even one whose hash begins in the same way: eight digits are found in minutes."""
    (tmp_path / "inception.pth").write_bytes(b"not it")
    like = features.file_hash(tmp_path / "inception.pth") + "0" * 48
    monkeypatch.setattr(features, "INCEPTION_HASH", like)
    with pytest.raises(UserError, match="is not the Inception network that scores are published"):
        Reference(folder_of(photos(4), tmp_path / "real"), features=str(tmp_path / "inception.pth"))


def test_without_the_network_nothing_else_stands_in(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"could not be downloaded.*no network.*--features"):
        Reference(folder_of(photos(4), tmp_path / "real"))


def test_bad_files_are_named(scripted, tmp_path, capsys):
    real = str(folder_of(photos(10), tmp_path / "real"))
    mixed = folder_of(photos(4), tmp_path / "mixed")
    to_pil(photos(1, side=24)[0]).save(mixed / "x.png")
    small = str(folder_of(photos(4, side=8), tmp_path / "small"))
    one = str(folder_of(photos(1), tmp_path / "one"))
    four = str(tmp_path / "four.npz")
    np.savez(four, images=np.zeros((4, 16, 16, 4), np.uint8))
    (tmp_path / "x.safetensors").write_bytes(b"x")
    (tmp_path / "x.pt").write_bytes(b"x")
    for what, options, says in (
        (str(mixed), [], "differ in size"),
        (small, [], "are 8x8 in 3 channels, and the reference's 16x16"),
        (one, [], "too few samples, 1"),
        (
            four,
            [],
            "in 4 channels, and the reference's 16x16: only images of one size, gray or RGB",
        ),
        (real, ["--split", "test"], "--split is for named sets"),
        (real, ["--held-out", one], "has only one image"),
        (real, ["--held-out", real], "the very images"),
        (real, ["--features", "cifar-net"], "cifar-net sees images of 32x32"),
        (real, ["--features", "nothing"], "there is no feature network 'nothing'"),
        (real, ["--features", str(tmp_path / "x.safetensors")], "holds neither"),
        (real, ["--features", str(tmp_path / "x.pt")], "is not TorchScript"),
    ):
        words = ["evaluate", what, "--data", real, "--features", scripted, *options]
        assert main(words) == 1
        assert says in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_time_alone(scripted, tmp_path, monkeypatch, capsys):
    reference = Reference(folder_of(photos(10), tmp_path / "real"), features=scripted)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "file" / "cache"))
    assert reference.score(Samples(photos(6, 1), None, ()), {}).distance > 0
    assert "could not be written" in capsys.readouterr().err


def test_no_room_for_features(trusted, tmp_path, monkeypatch):
    """/dev/full stands for a disk without room."""
    reference = Reference(folder_of(photos(6), tmp_path / "real"), features=trusted)
    full = lambda **k: Path("/dev/full").open("w+b")  # noqa: E731, SIM115
    monkeypatch.setattr(sys.modules["ddpm.evaluation.reference"], "TemporaryFile", full)
    with pytest.raises(UserError, match=r"No space left on device.*DDPM_CACHE"):
        reference.score(Samples(photos(12, 1), None, ()), {})


# ---- likelihood ------------------------------------------------------------------------------


def test_bits_per_dim_of_the_bundled_weights(reference):
    """An untrained network's are far more; how many images pass at once does not count."""
    checkpoint, batches, two = load("mnist"), [], torch.arange(2)
    of = likelihood(checkpoint, reference.held_out, two, batch=1, on_batch=batches.append)
    assert batches == [1, 1]
    assert of.n == 2
    assert 0.5 < of.bits < 4
    assert of.error < of.bits / 4
    again = likelihood(checkpoint, reference.held_out, two)
    assert again.bits == pytest.approx(of.bits, rel=1e-3)
    torch.manual_seed(0)
    fresh = build(checkpoint.config, checkpoint.data)[0].eval()
    assert likelihood(replace(checkpoint, net=fresh), reference.held_out, two).bits > 1.5 * of.bits


def test_likelihood_needs_images_of_the_networks_kind(reference):
    checkpoint, held_out = load("mnist"), reference.held_out
    colour = replace(held_out, images=held_out.images.expand(-1, 3, -1, -1))
    with pytest.raises(UserError, match="not of the network's shape"):
        likelihood(checkpoint, colour, torch.arange(2))
    with pytest.raises(UserError, match="other classes"):
        likelihood(checkpoint, replace(held_out, classes=("a",) * 10), torch.arange(2))


def test_held_out_images_that_do_not_fit_are_refused_before_the_work(
    shared_data, tmp_path, monkeypatch, capsys
):
    module = sys.modules["ddpm.generation.generate"]  # `ddpm.generate` is the function
    monkeypatch.setattr(module, "generate", lambda *a, **k: pytest.fail("it was made"))
    digits = photos(20, channels=1, side=28)
    other = str(folder_of(digits, tmp_path / "other"))  # without classes
    words = ["evaluate", "--n", "20", "--root", str(shared_data), "--held-out", other]
    assert main([*words, "--likelihood", "2", "--data", "mnist5k"]) == 1
    assert "other classes than the network" in capsys.readouterr().err


def test_the_command_bounds_the_likelihood(shared_data, tmp_path, capsys):
    words = ["evaluate", "--n", "20", "--steps", "2", "--root", str(shared_data)]
    assert main([*words, "--likelihood", "1", "--out", str(tmp_path / "s.json")]) == 0
    assert "bits/dim" in capsys.readouterr().out
    score = read_report(tmp_path / "s.json")
    assert 1 < score.likelihood.bits < 8
    assert score.likelihood.error is None
    assert main([*words, "--likelihood", "2", "--data", "mnist5k"]) == 1
    assert "name them with --held-out" in capsys.readouterr().err
