"""The demo in a real browser, as visitors use it."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lazy import optional
from pictures import open_data_uri
from servers import serving

optional("gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")

from ddpm import train  # noqa: E402
from ddpm.checkpoint.header import WEIGHTS_FOLDER  # noqa: E402
from ddpm.cli.main import main  # noqa: E402
from ddpm.config import (  # noqa: E402
    Config,
    DiffusionConfig,
    SampleConfig,
    TrainConfig,
    UNetConfig,
)

WAIT = 180_000  # milliseconds for anything to appear, on a busy machine
playwright.expect.set_options(timeout=WAIT)

VIEWS = {  # and what is there when one has opened
    "Create": "#view-create .caption",
    "Draw": "#view-draw .sketch",
    "Between": "#view-between .dot",
    "Whiteboard": "#view-board img[alt^='x̂0']",
    "In 2-D": "#view-plane canvas",
    "Training": "#view-train .chart :is(.line, circle)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run in colour of T = 100, hardly trained, and a copy of the bundled weights that may
    vanish."""
    folder = tmp_path_factory.mktemp("demo")
    unet = UNetConfig(channels=8, mults=(1, 2), blocks=1, attention=(), groups=4)
    config = Config(
        steps=2, unet=unet, train=TrainConfig(batch=8), sample=SampleConfig(steps=4),
        diffusion=DiffusionConfig(T=100),
    )  # fmt: skip
    photos = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "photos.npz", images=photos, labels=np.arange(40) % 2)
    train(replace(config, data=str(folder / "photos.npz")), folder / "runs" / "colour")
    shutil.copy(WEIGHTS_FOLDER / "mnist.safetensors", folder / "vanishing.safetensors")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    models = ("mnist", "runs/colour", "vanishing.safetensors")
    with serving(folder, *models) as (address, process, log):
        yield f"{address}/"
        assert process.poll() is None, "the demo died: " + log.read_text()


def visit(browser, address, link="", width=1280, height=900, bypass_csp=True, **options):
    """A page. What Playwright waits for is text that is evaluated, which its policy refuses."""
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, bypass_csp=bypass_csp, **options)
    page.set_default_timeout(WAIT)
    page.elsewhere, page.broken = [], []
    page.on("request", lambda r: noted(page, r.url))
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    page.goto(address + link)
    page.wait_for_selector("[role=tab]")
    return page


@pytest.fixture
def page(browser, address):
    page = visit(browser, address)
    yield page
    assert not page.elsewhere
    assert not page.broken
    page.close()


@pytest.fixture
def at(browser, address):
    """Opens a link, and closes what it has opened."""
    opened = []

    def go(link, **options):
        opened.append(visit(browser, address, link, **options))
        return opened[-1]

    yield go
    for one in opened:
        assert not one.elsewhere
        assert not one.broken
        one.close()


def noted(page, url):
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        page.elsewhere.append(url)


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    page.locator(VIEWS[name]).first.wait_for()


def view(page):
    return page.locator("[role=tabpanel]:visible")


def pick(page, legend, text):
    """Choose a chip or a card."""
    group = view(page).get_by_role("group", name=legend)
    group.get_by_role("radio", name=text, exact=True).check(force=True)


def set_number(page, label, value):
    box = view(page).get_by_role("spinbutton", name=label)
    box.fill(str(value))
    box.press("Tab")


def finished(page, steps=None):
    """Wait for the last frame, of so many steps."""
    end = r"^step (\d+) of \1 · t = 0 " if steps is None else rf"^step {steps} of {steps} "
    caption = view(page).locator(".caption")
    playwright.expect(caption).to_have_text(re.compile(end))
    page.wait_for_function(
        "[...document.querySelectorAll('[data-film=done]')].some((e) => e.checkVisibility())"
    )


def pause(page):
    found = view(page).get_by_role("button", name="Pause", exact=True)
    if found.count():
        found.click()


def pixels(page, kind="x"):
    """What is on a canvas of the stage."""
    uri = view(page).locator(f"canvas[data-kind={kind}]").evaluate("c => c.toDataURL()")
    return np.asarray(open_data_uri(uri).convert("L")).astype(int)


STILL = "#view=create&model=mnist&n=4&settings=" + '{"steps":6}'


def test_it_is_alive_when_it_opens(at, folder):
    """A film, the choice of networks and a sentence, without a click."""
    page = at("")
    page.wait_for_function("document.querySelector('.caption').textContent.startsWith('step')")
    captions = set()
    for _ in range(100):
        captions.add(page.locator("#view-create .caption").inner_text())
        page.wait_for_timeout(100)
        if len(captions) > 5:
            break
    assert len(captions) > 5
    assert page.locator("#view-create .cards img").count() == 3
    assert len(page.locator("#view-create .says").inner_text()) > 20
    assert pixels(page).std() > 20
    assert "Traceback" not in (folder / "log").read_text()


def test_nothing_comes_from_elsewhere_and_no_text_is_run(browser, address):
    """Under the page's own policy."""
    page = visit(browser, address, bypass_csp=False)
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    for name in VIEWS:
        tab(page, name)
    assert not page.broken
    assert not page.elsewhere
    assert not said
    page.close()


def test_scrub_enlarge_and_take_home(at):
    page = at(STILL)
    finished(page, 6)
    pause(page)
    last = pixels(page)
    scrub = page.get_by_role("slider", name="Step of the film")
    scrub.press("Home")
    assert "step 0 of 6" in page.locator("#view-create .caption").inner_text()
    assert "Pure static" in page.locator("#view-create .says").inner_text()
    assert (pixels(page) != last).mean() > 0.5
    scrub.press("End")
    assert (pixels(page) == last).all()
    page.get_by_role("button", name=re.compile("Noisy images")).press("Enter")
    assert (pixels(page).shape != last.shape) or (pixels(page) != last).any()
    page.keyboard.press("Escape")
    assert (pixels(page) == last).all()
    for kind in ("GIF", "WebP"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        assert Image.open(download.value.path()).n_frames == 7
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG", exact=True).click()
    assert min(Image.open(download.value.path()).size) >= 400


def test_when_it_is_decided(at):
    page = at(STILL + "&label=3&n=1")
    finished(page, 6)
    page.locator("#view-create .decided svg").wait_for()
    assert page.locator(".decided polyline").count() == 10
    assert "“3”" in page.locator(".decided figcaption").inner_text()


def test_each_control_acts_at_once_and_what_cannot_act_is_not_there(at):
    page = at(STILL)
    finished(page, 6)
    pick(page, "Class", "7")
    page.wait_for_function("location.hash.includes('label=7')")
    set_number(page, "Steps, as a number", 3)
    finished(page, 3)
    page.get_by_text("More", exact=True).click()
    assert view(page).get_by_role("slider", name=re.compile("Guidance")).is_visible()
    pick(page, "Class", "none")
    playwright.expect(view(page).get_by_role("slider", name=re.compile("Guidance"))).to_be_hidden()
    sampler = view(page).get_by_label("Sampler")
    sampler.select_option("dpm++")
    playwright.expect(view(page).get_by_role("slider", name=re.compile("η"))).to_be_hidden()
    sampler.select_option("ddim")
    playwright.expect(view(page).get_by_role("slider", name=re.compile("η"))).to_be_visible()
    finished(page, 3)
    before = page.evaluate("location.hash")
    page.get_by_role("button", name="Another seed").locator("visible=true").click()
    page.wait_for_function("h => location.hash !== h", arg=before)
    finished(page, 3)


def test_a_slider_that_is_dragged_changes_the_address_less_often_than_safari_forbids(at):
    page = at(STILL + "&n=1")
    finished(page, 6)
    page.evaluate(
        """() => {
            const change = history.replaceState.bind(history);
            window.changes = 0;
            window.began = performance.now();
            history.replaceState = (...all) => { window.changes += 1; change(...all); };
        }"""
    )
    number = view(page).get_by_label("Steps, as a number")
    number.evaluate(  # in a second and a half, so that what is asserted tells
        """async (input) => {
            for (let steps = 2; steps < 62; steps++) {
                input.value = steps;
                for (const type of ['input', 'change'])
                    input.dispatchEvent(new Event(type, {bubbles: true}));
                await new Promise((resolve) => setTimeout(resolve, 25));
            }
        }"""
    )
    finished(page, 61)
    assert page.evaluate("window.changes - 20 * (performance.now() - window.began) / 10000") <= 21
    page.wait_for_function("decodeURIComponent(location.hash).includes('\"steps\":61')")


def test_the_skip_link_keeps_what_is_chosen(at):
    page = at(STILL + "&seed=11")
    finished(page, 6)
    before = page.evaluate("location.hash")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "views"
    assert page.evaluate("location.hash") == before


def test_guidance_of_no_class_is_a_command_without_one(at):
    page = at('#view=create&model=mnist&n=1&label=5&settings={"steps":6,"guidance":0}')
    finished(page, 6)
    page.get_by_role("button", name="Command").click()
    words = shlex.split(page.locator("#copied pre").inner_text())
    assert "--label=5" not in words
    assert words[words.index("--guidance") + 1] == "0"


def test_a_number_out_of_range_is_brought_within(page, folder):
    for typed, steps in ((10**9, 200), (-5, 1), ("", 1)):
        set_number(page, "Steps, as a number", typed)
        box = view(page).get_by_role("spinbutton", name="Steps, as a number")
        assert box.input_value() == str(steps)
    finished(page, 1)
    assert not page.locator("#notices p").count()
    assert "Traceback" not in (folder / "log").read_text()


def test_stop_keeps_the_film(at):
    page = at("#model=mnist&n=16&settings=" + '{"steps":1000,"sampler":"ddpm"}')
    page.wait_for_function("/^step [2-9]/.test(document.querySelector('.caption').textContent)")
    page.get_by_role("button", name="Stop", exact=True).click()
    playwright.expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    assert not page.locator("#notices .error").count()
    page.get_by_role("slider", name="Step of the film").press("Home")
    assert "step 0 of 1000" in page.locator("#view-create .caption").inner_text()


def test_a_link_restores_what_is_on_the_page(at):
    page = at(STILL + "&seed=11&label=5")
    finished(page, 6)
    pause(page)
    made = pixels(page)
    page.get_by_role("button", name="Copy link").click()
    link = page.locator("#copied pre").inner_text()
    other = at(link[link.index("#") :])
    finished(other, 6)
    pause(other)
    other.get_by_role("slider", name="Step of the film").press("End")
    assert (pixels(other) == made).all()
    for odd in (
        "#view=nowhere&model=none&seed=-4&n=1e9",
        "#settings=[]&fork=3&at=7",
        "#%00%ff=&&&",
    ):
        assert at(odd).locator("[role=tab][aria-selected=true]").inner_text() == "Create"


def test_a_link_has_the_drawing_and_the_plane(at):
    page = at("#view=draw&seed=4&strength=0.4")
    finished(page)
    canvas = page.locator(".sketch")
    canvas.focus()
    page.keyboard.press("Space")
    finished(page)
    shown = pixels(page, "x0")
    page.get_by_role("button", name="Copy link").click()
    link = page.locator("#copied pre").inner_text()
    other = at(link[link.index("#") :])
    finished(other)
    assert np.abs(pixels(other, "x0") - shown).mean() < 30
    page.locator("#copied button").click()
    tab(page, "In 2-D")
    view(page).get_by_role("radio", name="Rings").check(force=True)
    page.wait_for_function("decodeURIComponent(location.hash).includes('rings')")
    plane = at(page.evaluate("location.hash"))
    assert plane.locator("#view-plane").get_by_role("radio", name="Rings").is_checked()
    view(page).get_by_role("radio", name="Draw").check(force=True)
    page.locator("#view-plane canvas").focus()
    page.keyboard.press("Space")
    drawn = at(page.evaluate("location.hash"))
    assert drawn.locator(".plane-pen small").inner_text() == "708 points"


def test_the_command_and_the_python_make_the_same_images(at, tmp_path):
    page = at(STILL + "&seed=11&label=5")
    finished(page, 6)
    pause(page)
    made = pixels(page)
    page.get_by_role("button", name="Command").click()
    words = shlex.split(page.locator("#copied pre").inner_text())
    page.locator("#copied button").click()
    out = tmp_path / "x.npz"
    assert main([*words[1 : words.index("--out")], "--out", str(out), "--device", "cpu"]) == 0
    images = np.load(out)["arr_0"].reshape(4, 28, 28).astype(int)
    zoom = made.shape[0] // 57
    for k in range(4):
        y, x = (k // 2) * 29 * zoom, (k % 2) * 29 * zoom
        shown = made[y : y + 28 * zoom : zoom, x : x + 28 * zoom : zoom]
        assert np.abs(shown - images[k]).max() <= 1
    page.get_by_role("button", name="Python").click()
    names = {}
    exec(page.locator("#copied pre").inner_text(), names)
    assert np.abs(names["samples"].images[:, 0].numpy().astype(int) - images).max() <= 1


@pytest.mark.parametrize("mode", ["vary", "paint"])
def test_the_command_and_the_python_make_what_came_of_a_drawing(at, tmp_path, monkeypatch, mode):
    page = at(f"#view=draw&seed=4&strength=0.5&mode={mode}")
    if mode == "paint":
        page.locator(".sketch").focus()
        page.keyboard.press("Space")
    finished(page)
    made = pixels(page)
    monkeypatch.chdir(tmp_path)
    page.get_by_role("button", name="Command").click()
    words = shlex.split(page.locator("#copied pre").inner_text())
    for link in page.locator("#copied a").all():
        open_data_uri(link.get_attribute("href")).save(link.get_attribute("download"))
    page.locator("#copied button").click()
    assert main([*words[1 : words.index("--out")], "--out", "x.npz", "--device", "cpu"]) == 0
    image = np.load("x.npz")["arr_0"].reshape(28, 28).astype(int)
    zoom = made.shape[0] // 28
    assert np.abs(made[::zoom, ::zoom].reshape(28, 28) - image).max() <= 2
    page.get_by_role("button", name="Python").click()
    names = {}
    exec(page.locator("#copied pre").inner_text(), names)
    assert np.abs(names["samples"].images[0, 0].numpy().astype(int) - image).max() <= 2


def test_a_dice_thrown_as_each_film_ends(at):
    """The server has not told yet that it is done with the film before."""
    page = at(STILL + "&n=1")
    finished(page, 6)
    page.evaluate(
        """() => {
          const film = document.querySelector('#view-create .film');
          const dice = document.querySelector('#view-create .dice');
          window.films = 0;
          new MutationObserver(() => {
            if (film.dataset.film !== 'done') return;
            window.films += 1;
            if (window.films < 10) dice.click();
          }).observe(film, {attributes: true, attributeFilter: ['data-film']});
          dice.click();
        }"""
    )
    page.wait_for_function("window.films === 10")


def test_fork_and_compare(at):
    page = at(STILL + "&label=3&n=1")
    finished(page, 6)
    page.get_by_role("button", name="Another seed").locator("visible=true").click()
    page.get_by_role("button", name="guidance", exact=True).click()  # while images are coming
    playwright.expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    page.wait_for_function("document.querySelectorAll('.comparison img').length === 5")
    page.get_by_role("button", name="Another seed").locator("visible=true").click()
    finished(page, 6)
    pause(page)
    scrub = page.get_by_role("slider", name="Step of the film")
    scrub.press("Home")
    scrub.press("ArrowRight")
    early = pixels(page)
    page.get_by_role("button", name=re.compile("Go on from here")).click()
    pick(page, "Class", "8")
    page.wait_for_function("location.hash.includes('label=8')")
    finished(page, 6)
    pause(page)
    scrub.press("Home")
    scrub.press("ArrowRight")
    assert (pixels(page) == early).all()
    page.get_by_role("button", name="End the fork").click()
    page.get_by_role("button", name="steps", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.comparison img').length === 6")
    assert "evaluations" in page.locator(".comparison figcaption").first.inner_text()


def test_another_model_has_other_classes_and_colours(page):
    pick(page, "Network", "colour")
    finished(page, 4)  # the run's own
    pick(page, "Class", "1")
    finished(page, 4)
    uri = page.locator("#view-create canvas[data-kind=x]").evaluate("c => c.toDataURL()")
    shown = np.asarray(open_data_uri(uri).convert("RGB")).astype(int)
    assert (shown[..., 0] != shown[..., 2]).any()


def test_a_scribble_becomes_a_digit_while_one_draws(page):
    tab(page, "Draw")
    finished(page)
    first = pixels(page, "x0")
    canvas = page.locator(".sketch")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 60, steps=8)
    page.mouse.up()
    page.wait_for_function(
        "b => document.querySelector('#view-draw canvas[data-kind=x0]').toDataURL() !== b",
        arg=page.locator("#view-draw canvas[data-kind=x0]").evaluate("c => c.toDataURL()"),
    )
    finished(page)
    assert (pixels(page, "x0") != first).any()
    set_number(page, re.compile("How far.*number"), 0.05)
    page.wait_for_function("location.hash.includes('strength=0.05')")
    finished(page, 1)


def test_a_part_is_painted_anew_with_the_keyboard(page):
    tab(page, "Draw")
    finished(page)
    pick(page, "What to do", "Paint a part anew")
    page.get_by_text("Paint over what is to be made anew").wait_for()
    assert view(page).get_by_text("the original").is_visible()
    canvas = page.locator(".sketch")
    canvas.focus()
    for key in ("Space", "ArrowRight", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    page.wait_for_function(
        "/^step [1-9]/.test(document.querySelector('#view-draw .caption').textContent)"
    )
    finished(page)
    page.get_by_role("button", name="Undo").click()


def test_photos_good_and_bad_are_for_all_views(page, tmp_path):
    photo = Image.fromarray(np.full((50, 50), 255, np.uint8))
    photo.paste(0, (20, 10, 30, 40))
    photo.save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("just text")
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    tab(page, "Draw")
    for name, says in (("text.png", "is not an image"), ("bomb.png", "pixels are too many")):
        page.locator("#photo").set_input_files(tmp_path / name)
        page.get_by_text(says).wait_for()
    page.locator("#photo").set_input_files(tmp_path / "photo.png")
    page.get_by_text("photo.png: its middle, at 28x28; inverted").wait_for()
    tab(page, "Whiteboard")
    page.locator("#view-board .note").get_by_text("photo.png: its middle").wait_for()
    shown = open_data_uri(page.locator("#view-board img[alt^='x0 at']").get_attribute("src"))
    assert np.asarray(shown)[0, 0] == 0  # light on dark, as the network knows digits
    pick(page, "Network", "colour")
    page.locator("#view-board .note").get_by_text("photo.png: its middle, at 16x16").wait_for()


def test_between_seeds(page):
    tab(page, "Between")
    page.wait_for_function("document.querySelector('.large').width > 64")
    pad = page.locator(".pad")
    before = page.locator(".large").evaluate("c => c.toDataURL()")
    pad.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("b => document.querySelector('.large').toDataURL() !== b", arg=before)
    assert "u = 0.90" in page.locator("#view-between .caption").inner_text()
    page.get_by_role("button", name="Morph").click()
    seen = set()
    for _ in range(200):
        seen.add(page.locator("#view-between .caption").inner_text())
        page.wait_for_timeout(100)
        if len(seen) > 5:
            break
    assert len(seen) > 5


def test_the_whiteboard_is_live(at):
    page = at("#view=board&t=250")
    number = page.locator("#view-board .equation-row .number").first
    playwright.expect(number).to_have_text("0.920")
    slider = view(page).get_by_role("slider", name=re.compile("how far towards static")).first
    slider.press("ArrowRight")
    page.wait_for_function("location.hash.includes('t=251')")
    slider.press("PageUp")
    playwright.expect(number).not_to_have_text("0.920")
    chart = page.locator("#view-board svg[role=slider]").first
    chart.focus()
    at = page.evaluate("document.activeElement.ariaValueNow")
    page.keyboard.press("PageUp")
    page.wait_for_function(f"location.hash.includes('t={int(at) + 50}')")
    box = page.get_by_role("spinbutton", name=re.compile("how far")).locator("visible=true")
    box.fill("")
    box.press_sequentially("7")
    page.wait_for_function("location.hash.includes('t=7')")
    page.locator("#view-board img[alt^='x0 at t = 7']").wait_for()
    page.locator("#view-board img[alt^='x0 at']").hover()
    page.locator(".pixel td").first.wait_for()
    page.get_by_role("spinbutton", name="Pixel, x").fill("5")
    page.locator(".pixel caption").get_by_text("Pixel (5, ").wait_for()
    page.get_by_role("button", name="ε the noise").first.click()
    page.wait_for_function(
        "document.querySelector('.equation').innerText.includes('.sqrt() * x_s')"
    )
    assert page.locator(".equation math").count() >= 2
    assert "Eq. 4" in page.locator(".equation .paper").inner_text()
    assert "predicts v" in page.locator(".predicts").inner_text()


def test_a_run_is_watched_while_its_tab_is_open(page, folder):
    tab(page, "Training")
    page.get_by_text(re.compile("^colour: (stopped|finished)")).wait_for()
    page.locator(".samples img").wait_for()
    line = {"step": 3, "images": 24, "seconds": 9.0, "loss": 0.5}
    with (folder / "runs" / "colour" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    page.get_by_text(re.compile("^colour: .*step 3 ")).wait_for()
    assert page.get_by_role("button", name="Begin a run").is_visible()
    tab(page, "Create")
    finished(page)
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "queue/join" in r.url else None)
    for _ in range(20):
        asked.clear()
        page.wait_for_timeout(5000)
        if not asked:
            return
    pytest.fail("the page asks for the run while another view is open")


# ---- for everyone ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        (1440, "light"),
        pytest.param(390, "light", marks=pytest.mark.long),
        pytest.param(1440, "dark", marks=pytest.mark.long),
    ],
)
def test_nothing_is_in_the_way_of_anyone(browser, address, width, scheme):
    """axe-core finds no violation of WCAG 2.2 A and AA in any view, and nothing is cut off."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is missing")
    page = visit(browser, address, STILL, width=width, height=844, color_scheme=scheme)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": tags}}
    for name, there in VIEWS.items():
        tab(page, name)
        page.locator(there).first.wait_for()
        if name == "Create":
            finished(page)
            page.get_by_text("More", exact=True).click()
        if name == "Whiteboard":
            page.locator(".equations button").first.click()
        found = axe.Axe().run(page, options=options).response["violations"]
        assert not [(v["id"], [n["html"][:150] for n in v["nodes"]]) for v in found], name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(CUT_OFF) == [], name
    page.close()


# What is cut off at the right, but for what can be scrolled to.
CUT_OFF = """() => {
  const scrolls = (e) => e && (
    ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const all = 'button, input, img, canvas, table, figure svg, math';
  return [...document.querySelectorAll(all)].filter((e) =>
    e.checkVisibility() && !e.closest('.visually-hidden')
    && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e)
  ).map((e) => e.outerHTML.slice(0, 80));
}"""


def test_on_the_smallest_phone_the_images_come_first(at):
    page = at(STILL, width=320, height=568)
    for name, there in VIEWS.items():
        tab(page, name)
        page.locator(there).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, name
        assert page.evaluate(CUT_OFF) == [], name
    tab(page, "Create")
    stage, rail = (page.locator(f"#view-create .{c}").bounding_box() for c in ("stage", "rail"))
    assert stage["y"] < rail["y"]


def test_the_whole_page_by_keyboard_alone(page):
    """Every control can be reached by Tab, shows that it is, and the tabs are gone through by
    arrows."""
    finished(page)
    pause(page)
    page.get_by_role("tab", name="Create").focus()
    for name in [*VIEWS][1:]:
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.textContent") == name
        page.locator(VIEWS[name]).first.wait_for()
        if name == "Whiteboard":
            page.locator("#view-board .chart .line").first.wait_for()
        wanted = page.evaluate(CONTROLS)
        reached = set()
        for _ in range(3 * len(wanted) + 20):
            page.keyboard.press("Tab")
            found = page.evaluate(FOCUSED)
            assert found["outline"], found["name"]
            reached.add(found["name"])
            if found["name"] == "tab":
                break
        missing = set(wanted) - reached
        assert len(missing) <= 0.05 * len(wanted), (name, missing)
        page.get_by_role("tab", name=name, exact=True).focus()


# Radio buttons are reached as one; what is closed is not reached.
CONTROLS = """() => [...document.querySelectorAll(
  '[role=tabpanel]:not([hidden]) :is(button, select, [tabindex="0"], input:not([type=radio]))')]
  .filter((e) => e.checkVisibility() && !e.disabled)
  .map((e) => (e.ariaLabel ?? e.id ?? '') + e.textContent.slice(0, 40) + e.type)"""
FOCUSED = """() => {
  const e = document.activeElement, s = getComputedStyle(e);
  const lit = (n) => n && parseFloat(getComputedStyle(n).outlineWidth) > 0
    && getComputedStyle(n).outlineStyle !== 'none';
  return {name: e.role === 'tab' ? 'tab' : (e.ariaLabel ?? e.id ?? '')
            + e.textContent.slice(0, 40) + e.type,
          outline: e === document.body || e.role === 'tab' || lit(e)
            || lit(e.nextElementSibling) || lit(e.closest('label'))};
}"""


def test_who_wants_less_motion_gets_none(browser, address):
    page = visit(browser, address, STILL, reduced_motion="reduce")
    finished(page, 6)
    assert page.get_by_role("button", name="Play", exact=True).is_visible()
    first = page.locator("#view-create .caption").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator("#view-create .caption").inner_text() == first
    page.close()


# ---- many visitors ---------------------------------------------------------------------------


def test_a_long_trajectory_keeps_nobody_waiting(at):
    long = "#model=mnist&n=16&settings=" + '{"steps":1000,"sampler":"ddpm"}'
    first = at(long)
    first.wait_for_function("/^step [1-9]/.test(document.querySelector('.caption').textContent)")
    second = at(STILL)
    finished(second, 6)
    assert "Done" not in first.locator("#view-create .says").inner_text()


@pytest.mark.long
def test_eight_visitors_are_told_and_served(browser, address):
    visitors = [visit(browser, address, STILL + f"&seed={i}") for i in range(8)]
    for visitor in visitors:
        finished(visitor, 6)
        visitor.close()


def test_a_checkpoint_that_vanishes_is_named_and_the_demo_lives_on(page, folder):
    finished(page)
    (folder / "vanishing.safetensors").rename(folder / "gone")
    pick(page, "Network", "vanishing.safetensors")
    page.get_by_text("no longer there").wait_for()
    (folder / "gone").rename(folder / "vanishing.safetensors")
    pick(page, "Network", "Digits")
    finished(page)
