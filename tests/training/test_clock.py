"""When things are due, and how a run is asked to stop."""

import os
import signal
from dataclasses import replace

import pytest

from ddpm import UserError
from ddpm.training import clock as module
from ddpm.training.clock import GUIDE_AT, Clock, catch_signals
from ddpm.utils.distributed import SINGLE_PROCESS


class Start:
    step, seconds = 0, 0.0


@pytest.fixture
def time(monkeypatch):
    """Seconds since the start, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0 + now[0])
    return now


@pytest.fixture
def config(tiny):
    minutes = replace(tiny.train, log_every=10, save_minutes=1, sample_minutes=2)
    return replace(tiny, steps=100, train=minutes)


def test_a_line_a_checkpoint_a_preview_and_the_end(config, time):
    clock = Clock(config, SINGLE_PROCESS, Start)
    assert clock.due(0, stop=False) == (0.0, 0.0, False, True, False, False, False, False)
    assert not clock.due(1, stop=False).line
    time[0] = 61
    due = clock.due(2, stop=False)
    assert (due.seconds, due.save, due.line, due.preview) == (61, True, True, False)
    clock.saved()
    assert not clock.due(3, stop=False).save
    time[0] = 121
    assert clock.due(4, stop=False).preview
    assert clock.due(100, stop=False).over
    assert clock.due(5, stop=True).over


def test_previews_take_a_tenth_of_the_time_at_most(config, time):
    clock = Clock(config, SINGLE_PROCESS, Start)
    with clock.timed(clock.previews):
        time[0] = 60
    time[0] = 60 + 599
    assert not clock.due(1, stop=False).preview
    time[0] = 60 + 600
    assert clock.due(2, stop=False).preview


def test_minutes_are_all_that_is_spent(config, time):
    """With the last preview, which takes as long as the one before."""
    minutes = replace(config, steps=None, minutes=10.0)
    clock = Clock(minutes, SINGLE_PROCESS, Start)
    with clock.timed(clock.previews):
        time[0] = 60
    time[0] = 539
    assert not clock.due(50, stop=False).over
    time[0] = 541
    due = clock.due(51, stop=False)
    assert (due.over, due.finished, due.seconds) == (True, True, 600)


def test_the_first_preview_is_guessed_from_the_steps(config, time):
    """A pass forward and one back take three times as long as one forward."""
    minutes = replace(config, steps=None, minutes=10.0)
    passes = 50 * config.train.batch
    clock = Clock(minutes, SINGLE_PROCESS, Start, preview_passes=passes)
    for step, over in ((100, False), (120, True)):  # of five seconds each: a preview takes 83
        time[0] = 5 * step
        assert clock.due(step, stop=False).over == (over and 5 * step > 600 - 5 * 50 / 3)
    assert clock.due(121, stop=False).over


def test_a_first_step_that_is_compiled_tells_no_pace(config, time):
    """It takes 90 s, and each one after it 0.1 s."""
    minutes = replace(config, steps=None, minutes=10.0)
    passes = 50 * config.train.batch
    clock = Clock(minutes, SINGLE_PROCESS, Start, preview_passes=passes)
    clock.due(0, stop=False)
    dues = []
    for step in range(1, 1000):
        time[0] = 90 + 0.1 * (step - 1)
        dues.append(clock.due(step, stop=False))
    assert dues[0].progress == pytest.approx(90 / 600)
    assert dues[-1].progress == pytest.approx(time[0] / (600 - 0.1 * 50 / 3), abs=1e-3)
    (early,) = [due.progress for due in dues if due.guide]
    assert early == pytest.approx(0.15 + GUIDE_AT * 0.85, abs=0.01)


def test_a_run_that_went_back_and_one_that_goes_on_have_their_time(config, time):
    minutes = replace(config, steps=None, minutes=10.0)
    passes = 50 * config.train.batch
    clock = Clock(minutes, SINGLE_PROCESS, Start, preview_passes=passes)
    clock.due(0, stop=False)
    time[0] = 300
    clock.due(100, stop=False)
    clock.rolled_back(Start)
    time[0] = 303
    assert clock.due(1, stop=False).progress == pytest.approx(303 / 600, abs=0.01)

    class Later:
        step, seconds = 1000, 400.0

    clock = Clock(minutes, SINGLE_PROCESS, Later, preview_passes=passes)
    clock.due(1000, stop=False)
    time[0] += 90
    assert not clock.due(1001, stop=False).over


@pytest.mark.parametrize(
    ("seconds", "has_guide", "due"), [(90, False, True), (90, True, False), (400, False, False)]
)
def test_a_run_that_goes_on_without_early_weights_keeps_those_it_has(
    config, time, seconds, has_guide, due
):
    minutes = replace(config, steps=None, minutes=10.0)

    class Later:
        step = 1000

    Later.seconds = seconds
    clock = Clock(minutes, SINGLE_PROCESS, Later, has_guide=has_guide)
    assert clock.due(1000, stop=False).guide == due
    assert not clock.due(1001, stop=False).guide


def with_scores(config, every):
    return replace(config, train=replace(config.train, score_minutes=every))


def test_scores_are_due_as_often_as_asked_and_take_a_quarter_of_the_time_at_most(config, time):
    clock = Clock(with_scores(config, 1.0), SINGLE_PROCESS, Start, score_seconds=10)
    time[0] = 59
    assert not clock.due(1, stop=False).score
    time[0] = 61
    due = clock.due(2, stop=False)
    assert (due.score, due.line, due.writes) == (True, True, True)
    with clock.timed(clock.scores):
        time[0] = 61 + 30
    time[0] = 61 + 30 + 119
    assert not clock.due(3, stop=False).score
    time[0] = 61 + 30 + 120
    assert clock.due(4, stop=False).score
    time[0] = 1e6
    assert (
        not Clock(config, SINGLE_PROCESS, Start).due(5, stop=False).score
    )  # never, unless asked for


def test_went_back_a_run_is_not_scored_before_its_time(config, time):
    clock = Clock(with_scores(config, 1.0), SINGLE_PROCESS, Start)
    time[0] = 30
    clock.rolled_back(Start)
    assert not clock.due(1, stop=False).score


@pytest.mark.parametrize(
    ("minutes", "every", "score", "guess", "before_the_last"),
    [(10, 2, 20, 20, 4), (10, 2, 20, 10, 4), (10, 2, 20, 40, 3), (10, 0.5, 60, 60, 1),
     (4, 1, 40, 40, 0), (10, 60, 100, 110, 0)],
)  # fmt: skip
def test_minutes_are_all_that_is_spent_with_scores(
    config, time, minutes, every, score, guess, before_the_last
):
    """Of a run that is played: a step takes a second, a preview five, and what comes last too."""
    config = replace(with_scores(config, every), steps=None, minutes=float(minutes))
    passes, step, scores = 15 * config.train.batch, 0, 0
    clock = Clock(config, SINGLE_PROCESS, Start, preview_passes=passes, score_seconds=guess)
    while not (due := clock.due(step, stop=False)).over:
        if due.preview:
            with clock.timed(clock.previews):
                time[0] += 5
        if due.score:
            with clock.timed(clock.scores):
                time[0] += score
            scores += 1
        time[0] += 1
        step += 1
    time[0] += 5 + score
    assert 0.95 * 60 * minutes <= time[0] <= 1.05 * 60 * minutes
    assert scores == before_the_last


def test_time_before_the_first_step_counts(config, time):
    clock = Clock(
        replace(config, steps=None, minutes=1.0), SINGLE_PROCESS, Start, since=1000.0 - 30
    )
    time[0] = 29
    assert not clock.due(1, stop=False).over
    time[0] = 31
    assert clock.due(2, stop=False).over


def test_the_guide_is_due_once_when_its_share_of_the_budget_is_spent(config, time):
    clock = Clock(config, SINGLE_PROCESS, Start)
    due = [k for k in range(100) if clock.due(k, stop=False).guide]
    assert due == [100 * GUIDE_AT]

    class Later:
        step, seconds = 50, 0.0

    assert not Clock(config, SINGLE_PROCESS, Later).due(50, stop=False).guide


def test_the_time_of_a_run_goes_on_where_it_was(config, time):
    class Later:
        step, seconds = 10, 500.0

    clock = Clock(config, SINGLE_PROCESS, Later)
    time[0] = 5
    assert clock.seconds == 505
    assert not clock.due(10, stop=False).save


def test_the_first_signal_asks_and_the_second_stops_at_once(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().err.count("stopping: saving after this step …") == 1


def test_a_launcher_says_it_again_to_all_that_it_launched(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with catch_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop == [signal.SIGTERM] * 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")
def test_a_terminal_that_is_closed_asks_however_often_it_says_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with catch_signals() as stop:
            for _ in range(3):  # from the system, from the shell
                os.kill(os.getpid(), signal.SIGHUP)
            assert stop
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with catch_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_is_taken_where_nobody_reads_what_is_said(monkeypatch):
    def broken(*args):
        raise BrokenPipeError

    monkeypatch.setattr(module.os, "write", broken)
    with catch_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop


def test_a_budget_in_steps_images_or_minutes(tiny):
    by_steps = replace(tiny, steps=10).budget
    assert by_steps.progress(5, 99.0) == 0.5
    assert by_steps.time_left(images_seen=5 * 16, seconds=99.0, rate=8.0) == 10
    by_images = replace(tiny, steps=None, images=160).budget
    assert by_images.progress(5, 99.0) == 0.5
    assert by_images.time_left(images_seen=200, seconds=99.0, rate=8.0) == 0
    by_minutes = replace(tiny, steps=None, minutes=0.02).budget
    assert by_minutes.progress(0, 0.6) == pytest.approx(0.5)
    assert by_minutes.time_left(0, 0.6, 8.0) == pytest.approx(0.6)
    for wrong in ({"steps": None}, {"minutes": 1.0}):
        with pytest.raises(UserError, match="one budget"):
            _ = replace(tiny, **wrong).budget
