"""Points in the plane: a network trained within seconds, and how it is sampled."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ddpm import UserError
from ddpm.core.sampling import SAMPLERS
from ddpm.core.schedule import SCHEDULES
from ddpm.demo import plane as module
from ddpm.demo.plane import MAX_KEPT, MAX_POINTS, SAMPLES, Networks, plane
from ddpm.demo.shapes import SHAPES

SPOTS = [[0.5 * (i % 2) - 0.25, 0.5 * (i % 3) - 0.5, i % 2] for i in range(60)]


@pytest.fixture(scope="module")
def networks():
    return Networks()


@pytest.fixture
def quick(monkeypatch):
    """Few steps of training, for what any network shows."""
    monkeypatch.setattr(module, "STEPS", 20)


def last(networks=None, **request):
    *_, frame = plane(request, Networks() if networks is None else networks)
    assert frame["phase"] == "done"
    return frame


def ends(frame):
    return torch.tensor([path[-1] for path in frame["paths"]])


def size(frame):
    return len(json.dumps(frame, allow_nan=False))


# ---- what is shown ---------------------------------------------------------------------------


def test_data_and_noise_come_at_once_then_training_then_paths(monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", -1.0)
    monkeypatch.setattr(module, "STEPS", 12)
    data, *training, done = plane({"points": "spirals", "steps": 7}, Networks())
    assert data["phase"] == "data"
    assert data["classes"] == 3
    assert {c for _, _, c in data["points"]} == {0, 1, 2}
    assert len(data["noise"]) == len(data["labels"]) == SAMPLES
    assert data["alpha_bar"][0] == 1
    assert len(data["alpha_bar"]) == 101
    assert [f["step"] for f in training] == list(range(1, 12))
    assert all(f["phase"] == "training" and len(f["samples"]) == SAMPLES for f in training)
    assert all(0 < f["share"] < 1 and math.isfinite(f["loss"]) for f in training)
    assert done["times"][0] == data["T"]
    assert done["times"][-1] == 0
    assert done["step"] == 12
    assert [path[0] for path in done["paths"]] == data["noise"]
    assert all(len(way) == 8 for way in done["paths"] + done["x0"])
    assert [way[-1] for way in done["x0"]] == [path[-1] for path in done["paths"]]
    field = done["field"]
    assert {len(vectors) for vectors in field["vectors"]} == {field["grid"] ** 2}
    assert len(field["vectors"]) == len(field["t"])


def test_what_the_network_sees_is_what_the_step_goes_by(quick):
    frame = last(steps=1)
    for path, seen in zip(frame["paths"], frame["x0"], strict=True):
        assert path[1] == seen[0]  # one step of DDIM goes to x0, and no farther


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", ["eps", "x0", "v", "u", "F"])
def test_every_schedule_and_target_trains_or_says_why_not(schedule, target, quick):
    if schedule == "flow" and target in ("eps", "F"):
        with pytest.raises(UserError, match="choose the target v, x0 or u"):
            last(schedule=schedule, target=target)
        return
    assert ends(last(schedule=schedule, target=target)).abs().max() < 1.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_samples_and_its_calls_are_counted(sampler, quick, networks):
    frame = last(networks, points="rings", sampler=sampler, steps=5)
    assert frame["nfe"] >= (6 if sampler == "heun" else 5)
    assert (sampler == "heun") == (frame["nfe"] > 5)
    assert (
        last(networks, points="rings", sampler=sampler, steps=5, guidance=2)["nfe"]
        == 2 * frame["nfe"]
    )


def test_frames_stay_small(quick):
    frames = list(plane({"points": "spirals", "steps": 200, "sampler": "ddpm"}, Networks()))
    assert size(frames[0]) < 40_000
    assert all(size(frame) < 10_000 for frame in frames[1:-1])
    assert size(frames[-1]) < 450_000
    assert len(frames[-1]["times"]) == 33


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_lie_in_the_plane_and_have_classes(name):
    x, y = SHAPES[name](1000, torch.Generator().manual_seed(0))
    assert x.shape == (1000, 2)
    assert x.abs().max() <= 1
    assert y.unique().tolist() == list(range(int(y.max()) + 1))
    assert y.max() >= 1


# ---- what choices do -------------------------------------------------------------------------


@pytest.mark.parametrize("points", ["moons", pytest.param("spirals", marks=pytest.mark.long)])
def test_samples_lie_on_the_data_and_cover_them(points, networks):
    frame = last(networks, points=points, seconds=8)
    assert frame["distance"] < 6 * frame["fresh"] + 0.01
    data = SHAPES[points](1000, torch.Generator().manual_seed(1))[0]
    x = ends(frame)
    fresh = SHAPES[points](SAMPLES, torch.Generator().manual_seed(2))[0]
    assert (
        torch.cdist(data, x).min(1).values.mean()
        < 2 * torch.cdist(data, fresh).min(1).values.mean()
    )
    noise = torch.tensor([path[0] for path in frame["paths"]])
    assert torch.cdist(noise, data).min(1).values.mean() > 10 * frame["fresh"]


def test_known_networks_answer_without_training(networks):
    list(plane({"seconds": 8}, networks))
    best = math.inf
    for steps, seed in ((10, 1), (20, 2), (30, 3)):
        begun = time.thread_time()
        frames = list(plane({"seconds": 8, "steps": steps, "seed": seed}, networks))
        best = min(best, time.thread_time() - begun)
        assert [f["phase"] for f in frames] == ["data", "done"]
    assert best < 0.3


def test_the_same_seed_gives_the_same_and_another_gives_other_samples(networks):
    a, b, c = (last(networks, seconds=8, sampler="ddpm", seed=seed) for seed in (5, 5, 6))
    assert a == b
    assert a["paths"] != c["paths"]
    assert a["field"] == c["field"]


def test_training_of_as_many_steps_is_the_same(quick, monkeypatch):
    monkeypatch.setattr(module.Clock, "seconds", lambda clock: 0.0)  # which the rate falls by, too
    assert last(points=SPOTS) == last(points=SPOTS)


def test_more_steps_come_closer_to_the_data(networks):
    few, many = (last(networks, seconds=8, steps=steps) for steps in (2, 50))
    assert few["distance"] > 1.5 * many["distance"]
    assert few["nfe"] == 2


def test_a_class_is_kept_to_and_guidance_takes_it_further(networks):
    moons, classes = SHAPES["moons"](2000, torch.Generator().manual_seed(1))

    def in_class(frame):
        return (classes[torch.cdist(ends(frame), moons).argmin(1)] == 1).float().mean()

    def spread(frame):
        return ends(frame).var(0).sum()

    none, plain, strong = (last(networks, seconds=8, label=1, guidance=w) for w in (0, 1, 4))
    assert 0.3 < in_class(none) < 0.7
    assert in_class(plain) > 0.85
    assert in_class(strong) > 0.95
    assert spread(strong) < spread(plain) < spread(none)


def test_the_field_points_to_where_the_paths_go(networks):
    frame = last(networks, seconds=8, steps=200, label=0)
    field, k = frame["field"], frame["times"].index(500)
    vectors = torch.tensor(field["vectors"][field["t"].index(510)]).view(17, 17, 2)
    paths = torch.tensor(frame["paths"])
    moved = paths[:, k + 1] - paths[:, k]
    cell = ((paths[:, k] / field["extent"] + 1) * 8).round().long().clamp(0, 16)
    arrows = vectors[cell[:, 1], cell[:, 0]]
    assert torch.cosine_similarity(moved, arrows).mean() > 0.8


# ---- points that are drawn -------------------------------------------------------------------


def test_drawn_points_are_learned(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 300)
    frame = last(points=SPOTS, seconds=8)
    assert frame["distance"] < 0.1


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0], [1, 1]],
        [[0.5, 0.5]] * 50,
        [[5, -7, 4], [1e8, 0, 2]],
        [(0.1, 0.2), (0.3, 0.4, 1.0)],
        [[math.sin(i), math.cos(i), i % 5] for i in range(MAX_POINTS)],
    ],
)
def test_points_of_any_kind_can_be_drawn(points, quick):
    data, *_, done = plane({"points": points, "guidance": 3}, Networks())
    assert all(abs(v) <= 1 for x, y, _ in data["points"] for v in (x, y))
    assert ends(done).isfinite().all()
    assert size(done) < 450_000


def test_classes_that_were_not_drawn_are_not_asked(quick):
    points = [[0, 0, 1], [1, 1, 3]] * 10
    data = next(plane({"points": points}, Networks()))
    assert set(data["labels"]) == {1, 3}
    with pytest.raises(UserError, match="no point is of class 2"):
        last(points=points, label=2)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (None, "a table of settings"),
        ([], "a table of settings"),
        ("moons", "a table of settings"),
        ({"points": "moon"}, "did you mean moons"),
        ({"points": "x" * 10_000}, "no points called"),
        ({"points": None}, "draw 2 to 4,000 points"),
        ({"points": 7}, "draw 2 to 4,000 points"),
        ({"points": {}}, "draw 2 to 4,000 points"),
        ({"points": []}, "not 0"),
        ({"points": [[0, 0]]}, "not 1"),
        ({"points": [[0, 0]] * 4001}, "not 4,001"),
        ({"points": [[0, 0], [0]]}, "point 2 is no"),
        ({"points": [[0, 0], [0, 0, 0, 0]]}, "point 2 is no"),
        ({"points": [[0, 0], "xy"]}, "point 2 is no"),
        ({"points": [[0, 0], ["0", 1]]}, "point 2 is no"),
        ({"points": [[0, 0], [True, 1]]}, "point 2 is no"),
        ({"points": [[0, 0], [None, 1]]}, "point 2 is no"),
        ({"points": [[math.nan, 0], [0, 0]]}, "point 1 lies nowhere"),
        ({"points": [[0, 0], [0, math.inf]]}, "point 2 lies nowhere"),
        ({"points": [[0, 10**400], [0, 0]]}, "point 1 lies nowhere"),
        ({"points": [[0, 0, 5], [0, 0]]}, "class 5"),
        ({"points": [[0, 0, -1], [0, 0]]}, "class -1"),
        ({"points": [[0, 0, 0.5], [0, 0]]}, "class 0.5"),
        ({"points": [[0, 0, math.nan], [0, 0]]}, "point 1 lies nowhere"),
        ({"schedule": "quadratic"}, "schedule"),
        ({"schedule": "flow", "target": "eps"}, "choose the target"),
        ({"target": "score"}, "target"),
        ({"sampler": "magic"}, "sampler"),
        ({"steps": 0}, "steps"),
        ({"steps": 201}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None}, "steps"),
        ({"guidance": -0.1}, "guidance"),
        ({"guidance": 6.1}, "guidance"),
        ({"guidance": math.nan}, "guidance"),
        ({"label": 2}, "no point is of class 2"),
        ({"label": -1}, "label"),
        ({"label": "all"}, "label"),
        ({"seconds": 9}, "seconds"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": math.inf}, "seconds"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"colour": "red"}, "colour"),
        ({7: 7}, "7"),
    ],
)
def test_what_cannot_be_asked(request_, said):
    with pytest.raises(UserError, match=said) as caught:
        next(plane(request_, Networks()))
    assert "\n" not in str(caught.value)


# ---- time and memory -------------------------------------------------------------------------


def test_training_ends_within_its_budget(monkeypatch):
    list(plane({"seconds": 0.1}, Networks()))  # torch loads parts of itself at the first training
    monkeypatch.setattr(module, "STEPS", 10**9)
    begun = time.perf_counter()
    frame = last(seconds=0.5, steps=2)
    assert time.perf_counter() - begun < 4  # twice as long by the clock, and what comes after
    assert 0 < frame["step"] < 10**6


def test_time_between_the_frames_is_not_the_budgets(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 10)
    monkeypatch.setattr(module, "INTERVAL", -1.0)
    steps = 0
    for frame in plane({"seconds": 1.5}, Networks()):
        if frame["phase"] == "training":
            time.sleep(0.4)
        steps = frame.get("step", steps)
    assert steps == 10


def test_what_is_stopped_is_not_kept(monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", -1.0)
    networks = Networks()
    frames = plane({"points": SPOTS}, networks)
    assert next(frames)["phase"] == "data"
    assert next(frames)["phase"] == "training"
    frames.close()
    assert len(networks) == 0


def test_visitors_at_once_each_get_their_own(quick):
    networks = Networks()
    last(networks)
    asked = [{"steps": 3 + i, "seed": i, "guidance": i / 2} for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda request: last(networks, **request), asked))
    assert together == [last(networks, **request) for request in asked]


def test_few_networks_are_kept_the_latest(quick):
    networks = Networks()
    asked = [[[0, 0], [i / 10, 1]] for i in range(MAX_KEPT + 3)]
    for points in asked:
        last(networks, points=points, steps=1)
    assert len(networks) == MAX_KEPT
    phases = [[f["phase"] for f in plane({"points": p, "steps": 1}, networks)] for p in asked[::-1]]
    assert all("training" not in p for p in phases[:MAX_KEPT])
    weights = sum(p.numel() for t in networks._kept.values() for p in t.net.parameters())
    assert weights < 500_000
