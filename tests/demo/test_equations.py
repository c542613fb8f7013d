"""The whiteboard."""

from xml.etree import ElementTree

import pytest
import torch

from ddpm import UserError
from ddpm.demo import equations


def test_the_board_has_the_numbers_of_the_schedule(digits):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    board = equations.whiteboard(digits, image, 250)
    assert (board["t"], board["T"], board["target"]) == (250, 1000, digits.diffusion.target)
    a_s, a_t = (digits.diffusion.schedule.at(t) for t in (249, 250))
    numbers = board["numbers"]
    assert numbers["alpha_bar"] == pytest.approx(float(a_t))
    assert numbers["weight_x0"] == pytest.approx(float(a_s.sqrt() * (1 - a_t / a_s) / (1 - a_t)))
    assert numbers["weight_x_t"] == pytest.approx(float((a_t / a_s).sqrt() * (1 - a_s) / (1 - a_t)))
    assert set(board["pictures"]) == {"x0", "eps", "x_t", "x0_hat", "eps_hat", "mean"}
    assert equations.whiteboard(digits, image, 5000)["t"] == 1000
    assert equations.whiteboard(digits, image, -3)["t"] == 1


def test_a_pixel_has_the_sum_that_is_written(digits):
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    board = equations.whiteboard(digits, image, 300, pixel=(3, 20))
    numbers, pixel = board["numbers"], {k: v[0] for k, v in board["pixel"].items()}
    assert pixel["x0"] == pytest.approx(image[0, 20, 3].item() / 127.5 - 1, abs=1e-4)
    made = numbers["sqrt_alpha_bar"] * pixel["x0"] + numbers["sqrt_rest"] * pixel["eps"]
    assert pixel["x_t"] == pytest.approx(made, abs=1e-3)
    mean = numbers["weight_x0"] * pixel["x0_hat"] + numbers["weight_x_t"] * pixel["x_t"]
    assert pixel["mean"] == pytest.approx(mean, abs=1e-3)
    with pytest.raises(UserError, match="outside"):
        equations.whiteboard(digits, image, 300, pixel=(28, 0))


def test_the_curves_are_those_of_the_posterior_and_made_once(digits):
    diffusion = digits.diffusion
    curves = equations.curves(diffusion)
    assert curves is equations.curves(diffusion)
    i = curves["t"].index(991)
    x0, x_t = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    posterior = diffusion.q_posterior(x0, x_t, 990, 991)
    mean = curves["weight_x0"][i] * x0 + curves["weight_x_t"][i] * x_t
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-3, atol=1e-3)
    assert curves["snr"][i] == pytest.approx(diffusion.schedule.snr(991).item(), rel=1e-4)
    assert curves["beta"][i] == pytest.approx(posterior.beta.item(), rel=1e-4)
    assert curves["beta_tilde"][i] == pytest.approx(posterior.beta_tilde.item(), rel=1e-4)


@pytest.mark.parametrize("equation", equations.EQUATIONS, ids=lambda e: e.key)
def test_each_equation_is_drawn_and_has_the_code_that_runs(equation):
    shown = equation.as_dict()
    math = ElementTree.fromstring(f"<all>{shown['mathml']}</all>")
    assert all(child.tag == "math" for child in math)
    assert len(math)
    assert shown["code"].startswith("def ")
    assert '"""' not in shown["code"]
    assert "return" in shown["code"]
    compile(shown["code"], equation.title, "exec")
