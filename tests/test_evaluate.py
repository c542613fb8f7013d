"""Scores of digits: what is near is near, what was asked is counted, all of it written down."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import Samples, UserError, load
from ddpm.cli import main
from ddpm.config import SampleConfig
from ddpm.digit_net import digit_net
from ddpm.evaluate import DIGITS, DigitJudge, evaluate


@pytest.fixture(scope="module")
def judge(shared_data):
    return DigitJudge(shared_data)


def of_test(judge, first, last):
    return Samples(judge.test.images[first:last], judge.test.labels[first:last], DIGITS)


def test_the_digit_net_is_small_and_right_on_digits_it_has_not_seen(judge):
    assert sum(p.numel() for p in digit_net().parameters()) < 250_000
    _, told = judge.look(judge.test.images)
    assert (told == judge.test.labels).float().mean() >= 0.995


def test_real_digits_are_at_the_floor(judge):
    score = judge.score(of_test(judge, 0, 1000), {})
    assert score.distance == pytest.approx(score.floor)
    assert score.floor_n == 1000
    assert score.as_asked > 0.98


def test_the_worse_the_digits_the_larger_the_distance(judge):
    real, noise = of_test(judge, 0, 1000), torch.Generator().manual_seed(0)
    distances = []
    for amount in (0, 60, 120, 240):
        noisy = real.images + amount * torch.randn(real.images.shape, generator=noise)
        images = noisy.clamp(0, 255).to(torch.uint8)
        distances.append(judge.score(replace(real, images=images), {}).distance)
    assert distances == sorted(distances)
    assert distances[1] > 1.2 * distances[0]


def test_as_asked_counts_labels(judge):
    real = of_test(judge, 0, 500)
    wrong = replace(real, labels=(real.labels + 1) % 10)
    assert judge.score(wrong, {}).as_asked < 0.02
    assert judge.score(replace(real, labels=None), {}).as_asked is None
    sevens = real.images[real.labels == 7]
    few = Samples(sevens, torch.zeros(len(sevens), dtype=torch.long), ("7",))
    assert judge.score(few, {}).as_asked > 0.9


def test_a_network_is_scored_with_its_protocol(judge):
    checkpoint = load("mnist")
    settings = SampleConfig(steps=3, guidance=2.0)
    score = evaluate(checkpoint, judge, 20, seed=5, settings=settings, batch=8)
    assert score.protocol.n == 20
    assert score.protocol.sampling["nfe"] == 6
    assert score.protocol.sampling["seed"] == 5
    assert score.as_asked is not None
    without = evaluate(checkpoint, judge, 20, settings=replace(settings, guidance=0.0))
    assert without.as_asked is None
    assert without.protocol.sampling["nfe"] == 3


def test_the_weights_in_the_box_are_good(judge):
    score = evaluate(load("mnist"), judge, 500)
    assert score.as_asked >= 0.99
    assert score.distance < 2.5 * score.floor


@pytest.mark.parametrize(
    ("shape", "classes"), [((3, 32, 32), ()), ((1, 28, 28), ("cat", "dog")), ((1, 32, 32), DIGITS)]
)
def test_what_is_not_digits_is_refused(judge, shape, classes):
    images = torch.zeros(4, *shape, dtype=torch.uint8)
    with pytest.raises(UserError, match="only handwritten digits can be scored"):
        judge.score(Samples(images, None, classes), {})


def test_the_command_scores_files(judge, shared_data, tmp_path, capsys):
    real = of_test(judge, 0, 300)
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


def test_the_command_scores_the_weights_in_the_box(shared_data, capsys):
    assert main(["evaluate", "--n", "20", "--steps", "4", "--root", str(shared_data)]) == 0
    text = capsys.readouterr().out
    for word in ("Fréchet distance", "floor", "as asked", "20 samples", "digit-net", "nfe"):
        assert word in text
    assert main(["evaluate", "nowhere", "--root", str(shared_data)]) == 1
    assert "there is no checkpoint at nowhere" in capsys.readouterr().err


def test_one_digit_is_no_set(judge):
    with pytest.raises(UserError, match="two samples"):
        judge.score(of_test(judge, 0, 1), {})


def test_the_reference_is_kept(judge, shared_data, monkeypatch):
    monkeypatch.setattr(DigitJudge, "look", lambda *a: pytest.fail("computed again"))
    again = DigitJudge(shared_data)
    np.testing.assert_array_equal(again.reference.mean, judge.reference.mean)


def test_a_damaged_reference_is_made_again(judge, shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path))
    DigitJudge(shared_data)
    (kept,) = tmp_path.glob("digit-reference-*")
    kept.write_bytes(b"torn")
    again = DigitJudge(shared_data)
    np.testing.assert_allclose(again.reference.cov, judge.reference.cov)
