"""The demo in a real browser, as visitors use it."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pictures import open_data_uri
from servers import serving

pytest.importorskip("gradio", reason="the demo needs gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")

from ddpm import train  # noqa: E402
from ddpm.checkpoint.header import WEIGHTS  # noqa: E402
from ddpm.config import (  # noqa: E402
    Config,
    DiffusionConfig,
    SampleConfig,
    TrainConfig,
    UNetConfig,
)
from ddpm.demo.page import TICK  # noqa: E402
from ddpm.demo.queue import SLOTS_OF_ADDRESS  # noqa: E402

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

WAIT = 180_000  # milliseconds for anything to appear, on a busy machine

TABS = (  # and what is there when one has opened
    ("Generate", "#stage .player"),
    ("Whiteboard", "#board .numbers"),
    ("Between and within", "#go-between"),
    ("Paint anew", "#canvas canvas"),
    ("Variations", "#go-vary"),
    ("Training", "#training .chart"),
)


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as p:
        try:
            browser = p.chromium.launch(executable_path=found, args=OPTIONS)
        except playwright.Error:
            pytest.skip("there is no Chromium here")
        yield browser
        browser.close()


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
    shutil.copy(WEIGHTS / "mnist.safetensors", folder / "vanishing.safetensors")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    models = ("mnist", "runs/colour", "vanishing.safetensors")
    with serving(folder, *models) as (address, process, log):
        yield f"{address}/"
        assert process.poll() is None, "the demo died: " + log.read_text()


def visit(browser, address, width=1280, height=1000):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(WAIT)
    page.elsewhere = []
    page.on("request", lambda r: noted(page, r.url))
    page.goto(address)
    page.wait_for_selector("#go")
    return page


@pytest.fixture
def page(browser, address):
    page = visit(browser, address)
    yield page
    assert not page.elsewhere
    page.close()


def noted(page, url):
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        page.elsewhere.append(url)


def tab(page, name):
    """Opens a tab; on a narrow screen it may be in a menu."""
    shown = page.get_by_role("tab", name=name)
    if not shown.count():
        page.get_by_role("button", name="More tabs").locator("visible=true").first.click()
        shown = page.locator(".overflow-dropdown").get_by_role("button", name=name)
    shown.first.click()


def choose(page, label, option):
    page.get_by_label(label, exact=True).locator("visible=true").first.click()
    page.get_by_role("option", name=option, exact=True).click()


def set_number(page, label, value):
    box = page.get_by_role("spinbutton", name=re.compile(label)).locator("visible=true").first
    box.fill(str(value))
    box.press("Tab")


def press_until(page, button, there):
    """What was painted is on its way to the server when the button is pressed at first."""
    for _ in range(9):
        page.click(button)
        try:
            page.wait_for_selector(there, timeout=WAIT / 9)
            return
        except playwright.TimeoutError:
            pass
    pytest.fail(f"{there} did not appear")


def caption(page, stage="#stage"):
    return page.locator(f"{stage} .caption").inner_text()


def test_generate_scrub_and_take_home(page):
    page.click("#go")
    page.wait_for_selector("#stage .player")
    assert "step 16 of 16" in caption(page)
    assert len(page.locator("#stage img").all()) == 2
    seed = re.search(r"seed (\d+)", caption(page))[1]
    page.get_by_role("button", name=re.compile("Sampler, guidance and seed")).click()
    box = page.get_by_role("spinbutton", name="Seed").locator("visible=true").first
    assert box.input_value() == seed
    final = page.locator("#stage img").first.get_attribute("src")
    assert np.asarray(open_data_uri(final)).std() > 40
    slider = page.locator("#stage .scrub input")
    slider.focus()
    for _ in range(16):
        page.keyboard.press("ArrowLeft")
    assert "step 0 of 16" in caption(page)
    static = page.locator("#stage img").first.get_attribute("src")
    assert static != final
    with page.expect_download() as download:
        page.get_by_role("link", name="PNG").click()
    assert Image.open(download.value.path()).size == open_data_uri(final).size
    with page.expect_download() as download:
        page.get_by_role("link", name="GIF").click()
    assert Image.open(download.value.path()).n_frames == 17


def test_the_slider_has_the_frames_of_the_last_images(page):
    statics = []
    for _ in range(2):
        before = page.locator("#stage").inner_html()
        page.click("#go")
        page.wait_for_function(
            "before => document.querySelector('#stage .player') "
            "&& document.querySelector('#stage').innerHTML !== before", arg=before)  # fmt: skip
        page.locator("#stage .scrub input").press("Home")
        assert "step 0 of 16" in caption(page)
        statics.append(page.locator("#stage img").first.get_attribute("src"))
    assert statics[0] != statics[1]


def test_stop_half_way(page):
    set_number(page, "Steps", 1000)
    page.click("#go")
    page.wait_for_selector("#stage .progress-bar")
    page.click("#stop")
    for _ in range(60):
        before = caption(page)
        page.wait_for_timeout(2000)
        if caption(page) == before:
            break
    else:
        pytest.fail("sampling went on")
    assert not page.locator("#stage .player").count()
    set_number(page, "Steps", 4)
    page.click("#go")
    page.wait_for_selector("#stage .player")
    assert "step 4 of 4" in caption(page)


def test_another_model_has_other_classes_and_colours(page):
    choose(page, "Model", "runs/colour")
    steps = page.get_by_role("spinbutton", name=re.compile("Steps")).locator("visible=true").first
    playwright.expect(steps).to_have_value("4", timeout=WAIT)  # the run's own
    choose(page, "Class", "1")
    set_number(page, "Images", 2)
    page.click("#go")
    page.wait_for_selector("#stage .player")
    assert open_data_uri(page.locator("#stage img").first.get_attribute("src")).mode == "RGB"


def test_the_whiteboard_is_live(page):
    tab(page, "Whiteboard")
    page.wait_for_selector("#board .numbers")
    assert "250 of 1000" in page.locator("#board").inner_text()
    slider = page.locator("#t input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#board').innerText.includes('253 of 1000')")
    assert page.locator(".katex").count() >= 4
    page.get_by_role("button", name=re.compile("Diffusion.q_sample")).click()
    page.wait_for_function("document.body.innerText.includes('(a_t / a_s).sqrt() * x_s')")


def test_a_number_may_be_emptied_to_type_another(page, folder):
    tab(page, "Whiteboard")
    page.wait_for_selector("#board .numbers")
    number = page.locator("#t input[type=number]")
    number.fill("")
    page.wait_for_function("document.querySelector('#board').innerText.includes('1 of 1000')")
    number.press_sequentially("7")
    page.wait_for_function("document.querySelector('#board').innerText.includes('7 of 1000')")
    assert not page.locator(".toast-body").count()
    assert "Traceback" not in (folder / "log").read_text()


NAMELESS = """() => {
  const named = (e) => e.labels?.length || e.ariaLabel || e.title || e.innerText?.trim()
    || document.getElementById(e.getAttribute('aria-labelledby'))
    || e.closest('label')?.innerText.trim() || e.placeholder;
  return [...document.querySelectorAll('input, select, textarea, button, canvas, img, a')]
    .filter((e) => e.checkVisibility() && !(e.tagName === 'IMG' ? e.alt : named(e)))
    .map((e) => e.outerHTML.slice(0, 120));
}"""


def test_every_control_has_a_name(page):
    page.click("#go")
    for name, there in TABS:
        tab(page, name)
        page.locator(there).wait_for()
        assert page.evaluate(NAMELESS) == [], name


def test_uploads_good_and_bad(page, tmp_path):
    tab(page, "Whiteboard")
    page.wait_for_selector("#board .numbers")
    before = page.locator("#board img").first.get_attribute("src")
    photo = Image.fromarray(np.full((50, 50), 255, np.uint8))
    photo.save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("just text")
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    photo.convert("P").save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("P", (50, 50))]
    )
    choose_file = page.locator("input[type=file]").locator("visible=true")
    for name, says in (
        ("text.png", "text.png is not an image"),
        ("bomb.png", "30000x30000 pixels are too many"),
    ):
        choose_file.set_input_files(tmp_path / name)
        page.wait_for_function(f"document.body.innerText.includes({says!r})")
        assert page.locator("#board img").first.get_attribute("src") == before
    choose_file.set_input_files(tmp_path / "photo.png")
    page.wait_for_function(
        "before => document.querySelector('#board img').src !== before", arg=before
    )
    assert (
        np.asarray(open_data_uri(page.locator("#board img").first.get_attribute("src"))).min()
        == 255
    )
    choose_file.set_input_files(tmp_path / "moving.gif")
    page.wait_for_function("document.body.innerText.includes('its first frame')")


def test_another_model_has_its_own_times_and_examples(page, tmp_path):
    tab(page, "Whiteboard")
    page.wait_for_selector("#board .numbers")
    Image.new("L", (50, 50), 255).save(tmp_path / "photo.png")
    page.locator("input[type=file]").locator("visible=true").set_input_files(tmp_path / "photo.png")
    page.wait_for_function("document.body.innerText.includes('photo.png: its middle')")
    choose(page, "Model", "runs/colour")
    page.wait_for_function("document.querySelector('#board').innerText.includes('100 of 100')")
    assert page.locator("#t input[type=range]").get_attribute("max") == "100"
    assert "photo.png" not in page.locator("body").inner_text()
    assert open_data_uri(page.locator("#board img").first.get_attribute("src")).mode == "RGB"
    choose(page, "Model", "mnist")
    page.wait_for_function("document.querySelector('#board').innerText.includes('100 of 1000')")


def test_paint_anew(page):
    tab(page, "Between and within")
    tab(page, "Paint anew")
    canvas = page.locator("#canvas canvas")
    canvas.wait_for()
    page.click("#go-paint")
    page.wait_for_function("document.body.innerText.includes('Nothing is painted over yet')")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + box["height"] * 0.75)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + box["height"] * 0.75, steps=12)
    page.mouse.up()
    press_until(page, "#go-paint", "#stage-paint .progress-bar")
    page.wait_for_selector("#stage-paint .player")
    sheet = np.asarray(open_data_uri(page.locator("#stage-paint img").first.get_attribute("src")))
    first, second = sheet[:28, :28].astype(int), sheet[:28, 29:57].astype(int)
    assert (first[:14] == second[:14]).all()
    assert (first[15:] != second[15:]).any()


def canvas_to_paint_on(page):
    """Once its picture is there."""
    tab(page, "Between and within")
    tab(page, "Paint anew")
    canvas = page.locator("#canvas canvas")
    canvas.wait_for()
    page.wait_for_function("document.querySelector('#canvas canvas').picture?.complete")
    return canvas


# The middle row of the mask: four numbers a pixel, the last of them 255 where it is painted.
ROW = "c => [...c.mask.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data]"


def test_a_quick_stroke_is_whole_and_a_new_picture_has_none(page):
    canvas = canvas_to_paint_on(page)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 20, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, y)
    page.mouse.up()
    assert set(canvas.evaluate(ROW)[3::4][20:-20]) == {255}
    before = canvas.evaluate("c => c.toDataURL()")
    set_number(page, "Image number", 3)
    page.wait_for_function(
        "before => document.querySelector('#canvas canvas').toDataURL() !== before", arg=before
    )
    assert set(canvas.evaluate(ROW)) == {0}


def test_painting_with_the_keyboard(page):
    canvas = canvas_to_paint_on(page)
    canvas.focus()
    page.keyboard.press("Space")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
    painted = canvas.evaluate(ROW)[3::4]
    middle = len(painted) // 2
    assert set(painted[middle - 10 : middle + 40]) == {255}
    assert set(painted[: middle - 60]) == {0}
    press_until(page, "#go-paint", "#stage-paint .progress-bar")
    page.wait_for_selector("#stage-paint .player")


def test_from_seed_to_seed_and_variations(page, tmp_path):
    tab(page, "Between and within")
    page.click("#go-between")
    page.wait_for_selector("#stage-between .player")
    tab(page, "Variations")
    Image.new("L", (50, 50), 255).save(tmp_path / "white.png")
    choose_file = page.locator("input[type=file]").locator("visible=true")
    choose_file.set_input_files(tmp_path / "white.png")
    page.wait_for_function("document.body.innerText.includes('white.png: its middle')")
    set_number(page, "How far", 0.05)
    page.click("#go-vary")
    page.wait_for_selector("#stage-vary .player")
    sheet = np.asarray(open_data_uri(page.locator("#stage-vary img").first.get_attribute("src")))
    assert sheet[:28, :28].mean() > 200


def test_a_run_can_be_watched_while_its_tab_is_open(page, folder):
    tab(page, "Training")
    page.wait_for_selector("#training .chart")
    assert "colour: " in page.locator("#training").inner_text()
    assert page.locator("#training img").count() == 2
    line = {"step": 3, "images": 24, "seconds": 9.0, "loss": 0.5}
    with (folder / "runs" / "colour" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    says = "document.querySelector('#training').innerText.includes('step 3 ')"
    page.wait_for_function(says)
    tab(page, "Generate")
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "queue/join" in r.url else None)
    for _ in range(20):
        asked.clear()
        page.wait_for_timeout(1200 * TICK)
        if not asked:
            return
    pytest.fail("the page asks for the run while another tab is open")


def begin_long_walk(page):
    set_number(page, "Steps", 1000)
    page.click("#go")
    page.wait_for_selector("#stage .progress-bar")


def test_a_long_walk_keeps_nobody_waiting(browser, address):
    first, second = (visit(browser, address) for _ in range(2))
    begin_long_walk(first)
    set_number(second, "Steps", 4)
    second.click("#go")
    second.wait_for_selector("#stage .player")
    assert not first.locator("#stage .player").count()
    for visitor in (first, second):
        visitor.close()


@pytest.mark.long
def test_a_visitor_sees_the_place_in_the_queue(browser, address):
    """Where as many walk as can."""
    last, *others = (visit(browser, address) for _ in range(SLOTS_OF_ADDRESS + 1))
    for visitor in others:
        begin_long_walk(visitor)
    set_number(last, "Steps", 4)
    last.click("#go")
    last.wait_for_function("/queue: \\d+\\/\\d+/.test(document.body.innerText)")
    others[0].click("#stop")
    last.wait_for_selector("#stage .player")
    for visitor in (last, *others):
        visitor.close()


VISIT = """() => {
  const visit = window.visit = {};
  const look = setInterval(() => {
    const player = document.querySelector('#stage .player');
    if (/queue: \\d+\\/\\d+/.test(document.body.innerText)) visit.place = true;
    if (document.querySelector('#stage .progress-bar') && !player) visit.frame = true;
    if (player) { visit.done = true; clearInterval(look); }
  }, 10);
  document.querySelector('#go').click();
}"""


@pytest.mark.long
def test_eight_visitors_are_told_and_served(browser, address):
    visitors = [visit(browser, address) for _ in range(8)]
    for visitor in visitors:
        set_number(visitor, "Steps", 25)
    for visitor in visitors:
        visitor.evaluate(VISIT)
    for visitor in visitors:
        visitor.wait_for_function("window.visit.done")
    seen = [visitor.evaluate("window.visit") for visitor in visitors]
    assert all("place" in visit or "frame" in visit for visit in seen), seen
    for visitor in visitors:
        visitor.close()


def test_a_closed_tab_stops_its_work(browser, address, page):
    leaving = visit(browser, address)
    set_number(leaving, "Steps", 1000)
    set_number(leaving, "Images", 64)
    leaving.click("#go")
    leaving.wait_for_selector("#stage .progress-bar")
    leaving.close()
    set_number(page, "Steps", 4)
    page.click("#go")
    page.wait_for_selector("#stage .player")


def test_a_checkpoint_that_vanishes_is_named_and_the_demo_lives_on(page, folder):
    choose(page, "Model", "vanishing.safetensors")
    (folder / "vanishing.safetensors").rename(folder / "gone")
    page.click("#go")
    page.wait_for_function("document.body.innerText.includes('no longer there')")
    (folder / "gone").rename(folder / "vanishing.safetensors")
    choose(page, "Model", "mnist")
    page.click("#go")
    page.wait_for_selector("#stage .player")


def test_nothing_can_be_left_on_the_server(page, address):
    sent = page.request.post(
        address + "gradio_api/upload",
        multipart={"files": {"name": "x.png", "mimeType": "image/png", "buffer": b"x" * 100}},
    )
    assert sent.status >= 400
    link = page.request.get(address + "gradio_api/deep_link?session_hash=x")
    assert link.status == 404


# What is cut off at the right, but for what can be scrolled to: the page itself hides it.
CUT_OFF = """() => {
  const scrolls = (e) => e && !e.matches('.gradio-container') && (
    ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const all = 'button, input, img, canvas, table, figure svg, .katex-html';
  return [...document.querySelectorAll(all)].filter((e) =>
    e.checkVisibility() && !e.closest('.visually-hidden')
    && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e)
  ).map((e) => e.outerHTML.slice(0, 80));
}"""


def test_on_a_phone(browser, address):
    phone = visit(browser, address, width=375, height=700)
    phone.click("#go")
    for name, there in TABS:
        tab(phone, name)
        phone.locator(there).wait_for()
        assert phone.evaluate("document.documentElement.scrollWidth") <= 375
        assert phone.evaluate(CUT_OFF) == [], name
    phone.close()
