"""A score: printed, saved and read, and compared with those of its own protocol alone."""

import json
from dataclasses import replace

import pytest

from ddpm import UserError
from ddpm.evaluation.report import (
    BEFORE,
    Likelihood,
    NearestDistances,
    Protocol,
    Report,
    ratio,
    read_report,
)

HOW = {"network": "x", "images_seen": 1, "steps": 9, "guidance": 1.0, "seed": 0}
PROTOCOL = Protocol(300, "digit-net 0", "mnist train 0", HOW, "mnist 1")
REPORT = Report(0.5, 0.25, 300, 0.99, PROTOCOL)
FULL = replace(
    REPORT, kid=0.1, kid_95=0.01, inception_score=2.0, precision=0.5, recall=0.25,
    likelihood=Likelihood(3.0, None, 1, "beta"), memorization=0.01,
    nearest=NearestDistances((0.1, 0.5), (1.0, 2.0), (3.0, 4.0)),
)  # fmt: skip


def changed(**values):
    """The report with other values in its protocol."""
    return replace(REPORT, protocol=replace(PROTOCOL, **values))


def test_a_report_prints_itself():
    text = str(FULL)
    for part in (
        "Fréchet distance   0.5000, 2.00 times the floor", "0.2500, of 300 real images",
        "0.10000 ± 0.01000", "2.000", "0.500, 0.250", "99.00%", "3.000 at most, of 1 held-out",
        "memorization       1.0%", "  50% are nearer than", "4.00", "300 samples; digit-net 0;",
        "floor of mnist 1", "guidance 1.0, seed 0",
    ):  # fmt: skip
        assert part in text
    assert "KID" not in str(REPORT)
    assert "FID" in str(changed(features="inception 6726"))
    assert "times the floor" not in str(replace(REPORT, floor=0.0))
    assert "times the floor" not in str(replace(REPORT, floor_n=30))


def test_it_is_saved_and_read(tmp_path):
    for report in (REPORT, FULL):
        report.save(tmp_path / "a.json")
        assert read_report(tmp_path / "a.json") == report
    for text in ("[]", "{", '{"distance": 1}'):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(UserError, match=r"b\.json"):
            read_report(tmp_path / "b.json")


def test_scores_with_former_names_are_read(tmp_path):
    FULL.save(tmp_path / "a.json")
    table = json.loads((tmp_path / "a.json").read_text())
    table["as_asked"], table["copies"] = table.pop("class_accuracy"), table.pop("memorization")
    table["protocol"]["sampling"]["images"] = table["protocol"]["sampling"].pop("images_seen")
    (tmp_path / "a.json").write_text(json.dumps(table))
    assert read_report(tmp_path / "a.json") == FULL


def test_only_scores_of_one_protocol_are_compared():
    better = replace(changed(sampling={**HOW, "network": "y", "images_seen": 2}), distance=0.25)
    assert ratio(REPORT, better) == 2
    for name, value in (("n", 200), ("features", "inception 0"), ("reference", "others")):
        with pytest.raises(UserError, match=f"{name} is .* here and {value} there"):
            ratio(REPORT, changed(**{name: value}))
    for name, value in (("steps", 10), ("guidance", 3.0), ("seed", 1)):
        with pytest.raises(UserError, match=f"{name} is {HOW[name]} here and {value} there"):
            ratio(REPORT, changed(sampling={**HOW, name: value}))
    with pytest.raises(UserError, match="distance is 0"):
        ratio(REPORT, replace(REPORT, distance=0.0))


def test_what_changes_nothing_is_not_compared():
    """Settings of another sampler, and how the weights were averaged, which is what is scored."""
    other = {**HOW, "sampler": "dpm++", "spacing": "even", "guidance": 1.0}
    here = {**other, "eta": 0.6, "sigma_min": 0.1, "guidance_above": 0.2, "weights": "ema"}
    there = {**other, "eta": 0.7, "sigma_min": 0.0, "guidance_above": 0.0, "weights": "as given"}
    assert ratio(changed(sampling=here), changed(sampling=there)) == 1
    with pytest.raises(UserError, match=r"eta is 0\.6 here and 0\.7 there"):
        ratio(*(changed(sampling={**how, "sampler": "ddim"}) for how in (here, there)))


@pytest.mark.parametrize(
    ("name", "other"),
    [("eps_scale", 1.01), ("precision", "bf16"), ("churn", 40.0), ("sigma_min", 0.2),
     ("guidance_above", 0.5), ("guidance_below", 0.7)],
)  # fmt: skip
def test_what_a_score_does_not_say_was_as_it_was_before(name, other):
    how = {**HOW, "guidance": 2.0, "spacing": "rho"}
    old = changed(sampling={k: v for k, v in how.items() if k != name})
    assert ratio(changed(sampling={**how, name: BEFORE[name]}), old) == 1
    with pytest.raises(UserError, match=f"{name} is {other} here"):
        ratio(changed(sampling={**how, name: other}), old)
