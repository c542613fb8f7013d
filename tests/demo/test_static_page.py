"""The page without a server: it draws what `generate` draws, and works as visitors use it."""

import functools
import http.server
import json
import os
import threading
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from ddpm.checkpoint import onnx as exporting
from ddpm.checkpoint.checkpoint import build, load, save, without_guide
from ddpm.checkpoint.header import PRETRAINED
from ddpm.cli.main import main
from ddpm.config import Config, DataInfo, DiffusionConfig, SampleConfig, UNetConfig
from ddpm.core.diffusion import Diffusion
from ddpm.core.sampling import named_step, sample, timesteps
from ddpm.core.schedule import named_schedule
from ddpm.core.types import SamplerName, Target
from ddpm.demo import static_page
from ddpm.demo.runtime import SCRIPT, WASM, read_runtime
from ddpm.generation.generate import (
    denoise_trajectory,
    generate,
    guided_denoiser,
    trajectories,
)
from ddpm.utils.errors import UserError
from ddpm.utils.random import ImageNoise

WAIT = 60_000  # milliseconds for anything to appear, on a busy machine


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def served(folder):
    """The address of a plain web server that has the folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="module")
def modules(browser):
    """A page from which the modules can be imported."""
    page = browser.new_page()
    page.goto(served(static_page.ALONE) + "icon.svg")
    yield page
    page.close()


@pytest.fixture(scope="module")
def runtime():
    """The package in the user's own cache, which outlives the tests', or from npm."""
    for name in exporting.NEEDED:
        pytest.importorskip(name, reason="pip install 'ddpm-from-scratch[onnx]'")
    own = os.environ.pop("DDPM_CACHE")
    try:
        return read_runtime()
    except UserError as error:
        pytest.skip(str(error))
    finally:
        os.environ["DDPM_CACHE"] = own


@pytest.fixture(scope="module")
def package(runtime, tmp_path_factory):
    """The npm package, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "dist").mkdir()
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1"}')
    (folder / SCRIPT).write_bytes(runtime.script)
    (folder / WASM).write_bytes(runtime.wasm)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network of random weights for digits, which is written as ONNX in seconds; its samples have
    all that the bundled digits' have."""
    torch.manual_seed(0)
    sampling = SampleConfig(
        steps=16, spacing="root", eta=0.6, guidance=1.6, guidance_above=0.7, precision="bf16"
    )  # fmt: skip
    unet = UNetConfig(channels=16, mults=(1,), blocks=1, attention=(), groups=4, patch=4)
    config = Config(unet=unet, sample=sampling)
    data = DataInfo("mnist", 10, 1, 28, 28, tuple("0123456789"), "f")
    net, _ = build(config, data)
    for p in net.eval().requires_grad_(False).parameters():
        p.normal_(0, 0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save(path, net, config, data, 7, 70)
    return str(path)


@pytest.fixture(scope="module")
def site(browser, package, small, tmp_path_factory):
    """A web host with the page of the small network in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    words = ["--static", str(folder / "some" / "digits"), "--runtime", str(package)]
    assert main(["demo", small, *words]) == 0
    return folder


def visit(browser, site, words="", **options):
    page = browser.new_page(**options)
    page.set_default_timeout(WAIT)
    page.errors, page.asked = [], []
    page.on("pageerror", lambda error: page.errors.append(error))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(served(site) + "some/digits/" + words)
    return page


@pytest.fixture
def page(browser, site):
    page = visit(browser, site)
    yield page
    assert not page.errors
    assert all(url.startswith(("http://127.0.0.1", "blob:")) for url in page.asked)
    page.close()


# ---- the computation ---------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (7, 3), (2**32 - 1, 1)])
def test_the_noise_of_a_seed_is_that_of_generate(modules, seed, index):
    n = 20_000  # so many have some in the tail, beyond 3.65
    theirs = modules.evaluate(
        "async ([seed, i, n]) => [...new (await import('./noise.js')).Noise(seed, i).draw(n)]",
        [seed, index, n],
    )
    ours = ImageNoise(seed, [index], (n,))()[0].numpy()
    assert np.abs(ours).max() > 3.7
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


SAMPLE = """async ([model, seed, asks]) => {
  const { sample } = await import('./sampler.js'), { Noise } = await import('./noise.js');
  const each = 12, images = [];
  const net = async (x, n, time, labels) =>
    x.map((v, i) => Math.tanh(0.9 * v + 0.001 * time + 0.2 * labels[Math.floor(i / each)]));
  for (const ask of asks) {
    const stream = new Noise(seed), states = [];
    for await (const { x } of sample(model, net, () => stream.draw(each), ask)) states.push([...x]);
    images.push(states);
  }
  return images;
}"""
SCHEDULE = {"F": "edm", "u": "flow"}


def closed_form(x, t, y=None):
    """The network of SAMPLE."""
    y = torch.full_like(t, 2, dtype=torch.long) if y is None else y
    shape = (-1, 1, 1, 1)
    return (0.9 * x + 0.001 * t.view(shape) + 0.2 * y.view(shape)).tanh()


def described(diffusion, settings):
    """What model.json says that the sampler reads."""
    schedule = diffusion.schedule
    return {
        "classes": ["a", "b"], "T": diffusion.T, "target": diffusion.target,
        "sigma_data": diffusion.sigma_data, "alpha_bar": schedule.alpha_bar.tolist(),
        "scale": None if schedule.scale is None else schedule.scale.tolist(),
        "times": {n: timesteps(schedule, n, settings.spacing) for n in (1, settings.steps)},
        "settings": vars(settings),
    }  # fmt: skip


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("sampler", get_args(SamplerName))
@torch.inference_mode()
def test_each_sampler_steps_as_ours_for_each_target(modules, sampler, target):
    schedule = named_schedule(SCHEDULE.get(target, "cosine"), 100)
    diffusion = Diffusion(schedule, target)
    settings = SampleConfig(
        sampler=sampler, steps=7, spacing="root", eta=0.5, guidance=1.7, guidance_above=0.3,
        guidance_below=0.9, eps_scale=1.02,
    )  # fmt: skip
    asks = [
        {"label": 1, "steps": 7, "guidance": 1.7},
        {"label": None, "steps": 7, "guidance": 1.7},
        {"label": 0, "steps": 7, "guidance": 0},
        {"label": 0, "steps": 1, "guidance": 1},
    ]
    found = modules.evaluate(SAMPLE, [described(diffusion, settings), 5, asks])
    for ask, states in zip(asks, found, strict=True):
        y = None if ask["label"] is None else torch.tensor([ask["label"]])
        own = replace(settings, steps=ask["steps"], guidance=float(ask["guidance"]))
        noise = ImageNoise(5, [0], (3, 2, 2))
        wanted = [
            state.x.flatten().tolist()
            for state in denoise_trajectory(closed_form, diffusion, noise, y, own, null=2)
        ]
        assert len(wanted) == ask["steps"] + 1
        np.testing.assert_allclose(states, wanted, rtol=2e-3, atol=2e-3)


RUN = """async (asks) => {
  const { Network } = await import('./network.js');
  const model = await (await fetch('model.json')).json(), images = [];
  return new Promise((done, failed) => {
    const next = () => images.length === asks.length ? done(images)
      : network.run(asks[images.length], ({ s, x }) => s === 0 && images.push([...x]) && next());
    const network = new Network(model, { progress() {}, failed, ready: next });
  });
}"""


def test_images_are_those_of_generate(page, small):
    asks = [
        {"seed": 11, "label": 3, "steps": 16, "guidance": 1.6},
        {"seed": 2**32 - 1, "label": None, "steps": 5, "guidance": 1.6},
        {"seed": 0, "label": 7, "steps": 4, "guidance": 0},
    ]
    given = ImageNoise(5, [0], (784,))()[0].tolist()
    compare(page, load(small), [*asks, asks[0] | {"start": given}])


@pytest.mark.long
@pytest.mark.parametrize("name", PRETRAINED)
def test_images_of_bundled_weights_are_those_of_generate(browser, package, name, tmp_path):
    words = ["--static", str(tmp_path / "some" / "digits"), "--runtime", str(package)]
    assert main(["demo", name, *words]) == 0
    page, checkpoint = visit(browser, tmp_path), without_guide(load(name))
    own = checkpoint.config.sample
    plain = {"seed": 11, "label": None, "steps": own.steps, "guidance": own.guidance}
    compare(page, checkpoint, [plain | {"label": 3}, plain] if checkpoint.conditional else [plain])
    command = text(page, "#command")
    assert (load(name).guide is not None) == ("--n 1 --guidance 1 " in command)
    assert (own.precision == "bf16") == (" --precision no " in command)
    page.close()


def compare(page, checkpoint, asks):
    """Each image must be that of `generate` to 1e-2, where black and white are 2 apart."""
    for image, ask in zip(page.evaluate(RUN, asks), asks, strict=True):
        wanted = generated(checkpoint, **ask)
        assert wanted.std() > 0.1
        np.testing.assert_allclose(image, wanted.flatten().numpy(), atol=1e-2)


@torch.inference_mode()
def generated(checkpoint, seed, label, steps, guidance, start=None):
    c, shape = checkpoint, checkpoint.data.shape
    settings = replace(c.config.sample, steps=steps, guidance=float(guidance), precision="no")
    y = None if label is None else torch.tensor([label])
    if start is None:
        *_, last = trajectories(c, 1, range(1), seed, y, settings)
        return last.x
    denoise = guided_denoiser(c.net, c.diffusion, y, settings, len(c.data.classes))
    step = named_step(settings.sampler, settings.eta, settings.variance)
    times = timesteps(c.diffusion.schedule, steps, settings.spacing)
    noise, x = ImageNoise(seed, [0], shape), torch.tensor(start).view(1, *shape)
    *_, last = sample(c.diffusion, denoise, noise, times, step, x)
    return last.x


# ---- as visitors use it ------------------------------------------------------------------------


def text(page, selector):
    return page.locator(selector).inner_text()


def contents(page, canvas):
    return page.evaluate(
        f"[...document.querySelector('{canvas}').getContext('2d')"
        ".getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    )


def wait(page, what):
    page.wait_for_function(what, timeout=WAIT)


def test_it_moves_by_itself_and_then_computes(page):
    wait(page, "/^step [2-9]/.test(document.querySelector('#where').textContent)")
    assert np.std(contents(page, "#x_t")) > 30
    assert text(page, "h1") == "Digits out of noise"
    wait(page, "document.querySelector('#made button')")  # the first that was computed here
    assert "ms an evaluation" in text(page, "#speed")
    assert len(page.locator(".chips label").all()) == 11
    assert page.locator("#step-live mn").count() >= 3


def test_what_is_asked_for_is_drawn_and_has_an_address(page, site, browser, small):
    page.get_by_role("radio", name="stop").check(force=True)
    page.get_by_role("radio", name="7", exact=True).check(force=True)
    page.get_by_label("Seed").fill("5")
    wait(page, "document.querySelector('#made button[title=\"7, seed 5\"]')")
    wait(page, "document.querySelector('#where').textContent === '16 steps, done'")
    command = (
        "ddpm generate MODEL --n 1 --label 7 --guidance 1.6 --precision no --steps 16 --seed 5"
    )
    assert text(page, "#command") == command
    settings = replace(load(small).config.sample, precision="no")
    wanted = generate(small, 1, seed=5, labels="7", settings=settings).images.flatten().numpy()
    assert np.abs(np.array(contents(page, "#x_t")) - wanted.astype(int)).max() <= 2
    assert page.url.endswith("digits/#class=7&guidance=1.6&steps=16&seed=5")
    other = visit(browser, site, page.url.partition("digits/")[2])
    assert other.get_by_label("Seed").input_value() == "5"
    assert other.get_by_role("radio", name="7", exact=True).is_checked()
    other.close()


def test_the_keyboard_plays_and_scrubs(page):
    wait(page, "/^step [2-9]/.test(document.querySelector('#where').textContent)")
    page.locator("#play").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Play", exact=True).count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "scrub"
    page.keyboard.press("Home")
    assert text(page, "#where") == "step 1 of 16"
    page.keyboard.press("ArrowRight")
    assert text(page, "#where") == "step 2 of 16"
    page.keyboard.press("End")
    assert text(page, "#where") == "16 steps, done"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, button')].filter((e) => !e.labels?.length"
        " && !e.ariaLabel && !e.textContent.trim()).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_it_fits_a_small_screen_and_rests_where_motion_is_unwanted(browser, site, scheme):
    page = visit(
        browser, site, viewport={"width": 320, "height": 640}, reduced_motion="reduce",
        color_scheme=scheme,
    )  # fmt: skip
    wait(page, "document.querySelector('#where').textContent === '16 steps, done'")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.get_by_role("radio", name="stop").is_checked()
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(colour) < 60) == (scheme == "dark")
    page.close()


# ---- what is written ---------------------------------------------------------------------------


def test_the_folder_has_no_more_than_the_page_needs(site):
    folder = site / "some" / "digits"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 7_000_000
    model = json.loads((folder / "model.json").read_text("utf-8"))
    assert model["settings"] | {"steps": 16} == model["settings"]
    assert (folder / "runtime" / "LICENSE.txt").is_file()


def test_nothing_of_a_user_is_replaced_unasked(tmp_path, capsys):
    (tmp_path / "index.html").write_text("mine")
    assert main(["demo", "--static", str(tmp_path)]) == 1
    assert "is not empty: name another folder, or add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mnist cifar10 --static {}/a", "shows one network"),
        ("--static {}/a --password x", "has no password"),
        ("--runtime {}", "add --static"),
        ("--overwrite", "add --static"),
        ("nowhere --static {}/a", "there is no checkpoint at nowhere"),
    ],
)
def test_what_does_not_fit_is_said(words, said, tmp_path, capsys):
    assert main(["demo", *words.format(tmp_path).split()]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_networks_that_a_page_cannot_run_are_refused(tmp_path, capsys):
    checkpoint = load("mnist")
    learned = replace(checkpoint.diffusion, learned_variance=True)
    with pytest.raises(UserError, match="learned the variance of its steps"):
        static_page.check_network(replace(checkpoint, diffusion=learned))
    two = replace(checkpoint.data, channels=2)
    with pytest.raises(UserError, match="1, 3 or 4 channels, and these have 2"):
        static_page.check_network(replace(checkpoint, data=two))
    (tmp_path / "model_index.json").write_text("{}")
    assert main(["demo", str(tmp_path), "--static", str(tmp_path / "page")]) == 1
    assert "is of diffusers: ddpm convert" in capsys.readouterr().err


def test_names_of_folders_stay_at_home(tmp_path):
    """Neither what is told to the browser nor what is shown names a path of the data or the run."""
    checkpoint = load("mnist")
    config = replace(checkpoint.config, diffusion=DiffusionConfig())
    data = replace(checkpoint.data, source="/home/someone/photos")
    seen = static_page.without_paths(replace(checkpoint, config=config, data=data))
    assert static_page.describe(seen, config.sample)["source"] == "photos"
    assert static_page.shown_name("/home/someone/runs/a") == "MODEL"
    assert static_page.shown_name("mnist") == "mnist"
