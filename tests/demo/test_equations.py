"""The whiteboard."""

import pytest
import torch

from ddpm.demo import equations


def test_the_board_shows_the_numbers_of_the_schedule(digits):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    html = equations.whiteboard(digits, image, 250)
    assert "250 of 1000" in html
    assert f"{digits.diffusion.schedule.at(250):.5f}" in html
    assert html.count("<img") == 5
    assert html.count("<svg") == 4
    a_s, a_t = (digits.diffusion.schedule.at(t) for t in (249, 250))
    for weight in (a_s.sqrt() * (1 - a_t / a_s), (a_t / a_s).sqrt() * (1 - a_s)):
        assert f"<td>{weight / (1 - a_t):.4f}</td>" in html
    assert "1000 of 1000" in equations.whiteboard(digits, image, 5000)
    assert "1 of 1000" in equations.whiteboard(digits, image, -3)


def test_the_curves_are_those_of_the_posterior_and_made_once(digits):
    diffusion = digits.diffusion
    lines = equations.curve_lines(diffusion)
    assert lines is equations.curve_lines(diffusion)
    at_991 = [dict(line.points)[991] for line in lines]
    x0, x_t = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    posterior = diffusion.q_posterior(x0, x_t, 990, 991)
    schedule = diffusion.schedule
    assert at_991[:2] == pytest.approx([schedule.at(991).item(), schedule.snr(991).item()])
    torch.testing.assert_close(at_991[2] * x0 + at_991[3] * x_t, posterior.mean)
    assert at_991[4:] == pytest.approx([posterior.beta.item(), posterior.beta_tilde.item()])


def test_the_code_shown_is_the_code_that_runs():
    for equation in equations.EQUATIONS:
        shown = equations.source(equation)
        assert shown.startswith("def ")
        assert '"""' not in shown
        assert "return" in shown
        compile(shown, equation.title, "exec")
