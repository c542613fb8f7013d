"""DDPM, EDM and rectified flow are one process: x_t = a_t x_0 + s_t ε."""

import math
import re
from pathlib import Path

import pytest
import torch

from ddpm import Diffusion, Loss, Schedule, linear
from ddpm.core.process import Process
from ddpm.core.schedule import SCHEDULES, edm, flow, from_a_s

PAIRS = [(0, 1), (0, 40), (1, 2), (20, 50), (49, 50), (30, 99)]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def process(name, T=100):
    """In float64; EDM's of a range that it does not lose there."""
    if name == "edm":
        return Process(torch.ones(T + 1).double(), torch.arange(T + 1).double() ** 2 / 125)
    if name == "flow":
        tau = torch.arange(T + 1).double() / T
        return Process(1 - tau, tau)
    return Process.of(Schedule(SCHEDULES[name](T).alpha_bar.double()))


def diffusion_of(process, target="v"):
    """The same as a variance-preserving one, and the scale beside it."""
    r2 = process.a**2 + process.s**2
    return Diffusion(Schedule(process.a**2 / r2, r2.sqrt()), target, clip=None)


@pytest.fixture
def draws(generator):
    return torch.randn(3, 4, 1, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("s", "t"), PAIRS)
@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "flow"])
def test_the_general_form_is_ddpms_at_a_scale(name, s, t, draws):
    """For a² + s² = 1 it is DDPM's own; for any other, DDPM's times √(a² + s²)."""
    x0, x, eps = draws
    general = process(name)
    diffusion, r = diffusion_of(general), (general.a**2 + general.s**2).sqrt()
    if name == "linear":
        torch.testing.assert_close(r, torch.ones_like(r))
    x_t = r[t] * diffusion.q_sample(x / r[s], t, eps, s)
    torch.testing.assert_close(general.q_sample(x, t, eps, s), x_t, **CLOSE)
    ours = general.q_posterior(x0, x_t, s, t)
    ddpms = diffusion.q_posterior(x0, x_t / r[t], s, t)
    torch.testing.assert_close(ours.mean, r[s] * ddpms.mean, **CLOSE)
    torch.testing.assert_close(ours.beta_tilde, r[s] ** 2 * ddpms.beta_tilde, **CLOSE)
    torch.testing.assert_close(ours.beta, r[s] ** 2 * ddpms.beta, **CLOSE)


@pytest.mark.parametrize("name", ["linear", "edm", "flow"])
def test_a_chain_of_single_steps_is_the_closed_form(name):
    general = process(name)
    mean, var = torch.ones(1).double(), torch.zeros(1).double()
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    for t in range(1, general.a.numel()):
        mean = general.q_sample(mean, t, zero, t - 1)
        step = general.q_sample(zero, t, one, t - 1)
        var = general.q_sample(var.sqrt(), t, zero, t - 1) ** 2 + step**2
    torch.testing.assert_close(mean, general.a[-1:])
    torch.testing.assert_close(var.sqrt(), general.s[-1:])


@pytest.mark.parametrize(("s", "t"), [(1, 2), (20, 50), (30, 99), (50, 100)])
@pytest.mark.parametrize("name", ["linear", "edm", "flow"])
def test_the_posterior_is_bayes_rule(name, s, t):
    general = process(name)
    x0, x_t = 0.3, 0.7
    posterior = general.q_posterior(torch.tensor(x0).double(), torch.tensor(x_t).double(), s, t)
    width = posterior.beta_tilde.sqrt()
    x_s = posterior.mean + width * torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    added = general.q_sample(torch.zeros(1).double(), t, torch.ones(1).double(), s)
    log_q = -((x_s - general.a[s] * x0) ** 2) / (2 * general.s[s] ** 2)
    log_q = log_q - (x_t - general.a[t] / general.a[s] * x_s) ** 2 / (2 * added**2)
    q = (log_q - log_q.max()).exp()
    q = q / q.sum()
    mean = (q * x_s).sum()
    assert mean.item() == pytest.approx(posterior.mean.item(), abs=1e-6)
    assert (q * (x_s - mean) ** 2).sum().item() == pytest.approx(width.item() ** 2, rel=1e-6)


def test_the_schedules_are_those_of_their_papers():
    sigmas = Process.of(edm()).s[1:]
    i = torch.arange(1000).double()
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = ((high + i / 999 * (low - high)) ** 7).flip(0).float()  # EDM, Eq. 5
    torch.testing.assert_close(sigmas, expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(sigmas[100:], expected[100:], rtol=1e-3, atol=0)
    torch.testing.assert_close(Process.of(edm()).a, torch.ones(1001))
    tau = torch.arange(1001) / 1000
    torch.testing.assert_close(Process.of(flow()).a, 1 - tau, rtol=0, atol=1e-4)
    torch.testing.assert_close(Process.of(flow()).s, tau, rtol=0, atol=1e-4)
    assert flow().snr(1000) == 0
    assert edm(1).alpha_bar[1].item() == pytest.approx(1 / 6401)


def test_the_network_sees_each_process_as_its_paper_has_it(draws):
    x0, _, eps = draws
    seen = {}

    def net(x, t, y):
        seen["x"], seen["t"] = x, t
        return x

    for name in ("edm", "flow"):
        general, t = process(name), torch.tensor([1, 20, 50, 99])
        diffusion = diffusion_of(general)
        diffusion.predict(net, diffusion.q_sample(x0, t, eps), t)
        a, s = (array[t].view(-1, 1, 1, 1) for array in (general.a, general.s))
        torch.testing.assert_close(seen["x"], a * x0 + s * eps)
        Loss(diffusion)(net, x0, t, eps)
        torch.testing.assert_close(seen["x"], a * x0 + s * eps)
        assert torch.equal(seen["t"], t)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_preconditioning_is_that_of_table_1(sigma_data, draws):
    """D(x; σ), its loss and its weight from the table's formulas, beside ours in x/√(1 + σ²)."""
    x0, out, eps = draws
    general, t = process("edm"), torch.tensor([1, 20, 50, 99])
    schedule = diffusion_of(general).schedule
    diffusion = Diffusion(schedule, "F", clip=None, sigma_data=sigma_data)
    sigma = general.s[t].view(-1, 1, 1, 1)
    total = sigma**2 + sigma_data**2
    x, weight = x0 + sigma * eps, total / (sigma * sigma_data) ** 2
    seen = {}

    def net(c_in_x, c_noise, y):
        seen["x"], seen["t"] = c_in_x, c_noise
        return out

    denoised = sigma_data**2 / total * x + sigma * sigma_data / total.sqrt() * out
    x_t = diffusion.q_sample(x0, t, eps)
    torch.testing.assert_close(diffusion.predict(net, x_t, t).x0, denoised)
    torch.testing.assert_close(seen["x"], x / total.sqrt())
    torch.testing.assert_close(seen["t"], sigma.flatten().log() / 4)
    loss = (weight * (denoised - x0).square()).flatten(1).mean(1)
    torch.testing.assert_close(Loss(diffusion)(net, x0, t, eps), loss)
    if sigma_data == 1:
        v = Diffusion(schedule, "v").target_of(x0, eps, t)
        torch.testing.assert_close(diffusion.target_of(x0, eps, t), -v)


def test_what_f_is_given_and_asks_back_has_unit_variance(generator):
    x0, eps = torch.randn(2, 5, 1, 100, 100, generator=generator, dtype=torch.float64)
    general, t = process("edm"), torch.tensor([1, 10, 30, 60, 100])
    diffusion = Diffusion(diffusion_of(general).schedule, "F", sigma_data=0.5)
    target = diffusion.target_of(0.5 * x0, eps, t)
    torch.testing.assert_close(target.std((1, 2, 3)), torch.ones(5).double(), rtol=0.03, atol=0)
    given = []
    diffusion.output(lambda x, t, y: given.append(x) or x, diffusion.q_sample(0.5 * x0, t, eps), t)
    torch.testing.assert_close(given[0].std((1, 2, 3)), torch.ones(5).double(), rtol=0.03, atol=0)


def test_noise_is_drawn_by_edms_law(generator):
    diffusion = Diffusion(edm(1000), "F")
    t = Loss(diffusion, time_sampling="log-normal").sample_times(20_000, generator)
    log_sigma = -diffusion.schedule.snr(t).log() / 2
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=0.03)
    assert log_sigma.std().item() == pytest.approx(1.2, rel=0.03)
    ended = Loss(Diffusion(flow(100), "u"), time_sampling="log-normal").sample_times(
        1000, generator
    )
    assert ended.min() >= 1
    assert ended.max() <= 100


def test_straight_paths_have_the_velocity_for_their_slope(draws):
    """u = dx/dτ of x = (1 − τ) x_0 + τ ε, the same at every τ."""
    x0, _, eps = draws
    general = process("flow")
    x = [general.q_sample(x0, t, eps) for t in (30, 31)]
    u = diffusion_of(general, "u").target_of(x0, eps, torch.full((4,), 30))
    torch.testing.assert_close((x[1] - x[0]) * 100, u)


@pytest.mark.parametrize("T", [1, 2, 50])
def test_from_a_s_is_of_both(T):
    angle = torch.linspace(0, math.pi / 2, T + 1).double()
    schedule = from_a_s(3 * angle.cos(), 3 * angle.sin())
    torch.testing.assert_close(schedule.scale, torch.full((T + 1,), 3.0))
    torch.testing.assert_close(schedule.alpha_bar, angle.cos().square().float(), rtol=0, atol=1e-6)
    assert linear(T).scale is None


def test_the_page_of_names_shows_the_code_that_runs():
    root = Path(__file__).parents[2]
    rows = re.findall(
        r"\| `([^`]+)` \| `(core/\w+\.py)` \|", (root / "docs/one-whiteboard.md").read_text()
    )
    assert len(rows) == 14
    for line, file in rows:
        source = (root / "src/ddpm" / file).read_text().splitlines()
        assert line in [text.strip() for text in source], line
