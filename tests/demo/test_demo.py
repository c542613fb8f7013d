"""The demo without a browser: what its parts promise."""

import asyncio
import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image

pytest.importorskip("gradio", reason="the demo needs gradio")

from fastapi import FastAPI
from starlette.middleware import Middleware

from ddpm import Edit, UserError, generate, load, load_images, save
from ddpm.cli.main import main
from ddpm.data.limits import PixelBudget
from ddpm.demo import equations, runs, server, stream, uploads
from ddpm.demo import models as models_module
from ddpm.demo.gate import MAX_SENT, Gate
from ddpm.demo.html import Line, chart, png
from ddpm.demo.models import EXAMPLE_STEPS, ModelStore


@pytest.fixture(scope="module")
def digits():
    return ModelStore(["mnist"], "cpu")["mnist"]


def data_uri(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def frames_of(page):
    return json.loads(re.search(r'data-frames="([^"]*)"', page)[1].replace("&quot;", '"'))


# ---- generate --------------------------------------------------------------------------------


def test_images_come_live_and_then_as_a_film(digits):
    settings = stream.settings_of(digits, "ddim", 16, 0.7, 2.0, stream.ALL)
    pages = list(stream.make(digits, settings, 4, seed=3))
    assert "step 0 of 16" in pages[0]
    assert len(pages) > 1
    frames = frames_of(pages[-1])
    assert len(frames) == 17
    assert "seed 3" in frames[-1][2]
    wanted = png(generate(load("mnist"), 4, seed=3, settings=settings).images)
    assert frames[-1][0] == wanted
    assert opened(re.search(r'href="(data:image/gif[^"]*)"', pages[-1])[1]).n_frames == 17


def test_a_long_walk_has_a_short_film(digits):
    settings = stream.settings_of(digits, "ddim", 200, 0, 1, "7")
    *_, page = stream.make(digits, settings, 1, seed=0, label="7")
    assert 20 < len(frames_of(page)) <= stream.FRAMES + 1


def test_a_film_of_large_images_has_fewer_frames(digits, monkeypatch):
    faces = replace(digits.data, channels=3, height=64, width=64)
    assert stream.most_frames(16, digits.data) >= 16
    assert 16 <= stream.most_frames(16, faces) <= 24
    assert 4 <= stream.most_frames(64, faces) <= 6
    assert stream.most_frames(64, replace(faces, height=4096, width=4096)) == 1
    monkeypatch.setattr(stream, "FILM", 4 * 4 * 28 * 28)
    settings = stream.settings_of(digits, "ddim", 16, 0, 1, stream.ALL)
    *_, page = stream.make(digits, settings, 4, seed=3)
    captions = [caption for _, _, caption in frames_of(page)]
    assert [int(caption.split()[1]) for caption in captions] == [0, 4, 8, 12, 16]


def test_a_walk_that_takes_too_long_is_ended(digits, monkeypatch):
    monkeypatch.setattr(stream, "LONGEST", 0.0)
    settings = stream.settings_of(digits, "ddim", 10, 0, 1, "7")
    with pytest.raises(UserError, match="10 steps of 10 before its end"):
        list(stream.make(digits, settings, 1, seed=0, label="7"))


def test_what_the_page_cannot_ask_for(digits):
    with pytest.raises(UserError, match="eta"):
        stream.settings_of(digits, "ddim", 10, 3.0, 1, stream.ALL)
    assert stream.settings_of(digits, "ddpm", 10**6, 0, 1, stream.ALL).steps == 1000
    assert stream.settings_of(digits, "ddpm", 10, 0, 3, stream.NONE).guidance == 0


@pytest.mark.parametrize(
    ("label", "asked"), [(stream.NONE, ()), (stream.ALL, tuple("0123456789")), ("7", ("7",))]
)
def test_an_edit_is_shown_too_with_the_class_that_is_asked(digits, label, asked):
    settings = stream.settings_of(digits, "ddim", 4, 0.7, 2, label)
    edit = Edit(towards=2)
    *_, page = stream.make(digits, settings, 3, 1, label, edit)
    made = generate(load("mnist"), 3, seed=1, labels=asked, settings=settings, edit=edit)
    assert frames_of(page)[-1][0] == png(made.images)


@pytest.mark.parametrize(
    ("edit", "steps", "nfe"),
    [
        (Edit(towards=2), 4, 4),
        (Edit(change=0.6), 3, 3),
        (Edit(mask=torch.ones(28, 28, dtype=torch.bool), rounds=3), 4, 10),
    ],
)
def test_steps_and_evaluations_are_those_of_the_edit(digits, edit, steps, nfe):
    if edit.towards is None:
        edit = replace(edit, image=load_images("mnist5k").images[0])
    settings = replace(stream.settings_of(digits, "ddim", 4, 0, 1, stream.NONE), spacing="even")
    *_, page = stream.make(digits, settings, 2, 0, stream.NONE, edit)
    frames = frames_of(page)
    assert frames[0][2].startswith(f"step 0 of {steps} ")
    assert f"step {steps} of {steps} · t = 0 " in frames[-1][2]
    assert f" {nfe} evaluations" in frames[-1][2]


# ---- equations -------------------------------------------------------------------------------


def test_the_board_shows_the_numbers_of_the_schedule(digits):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    html = equations.board(digits, image, 250)
    assert "250 of 1000" in html
    assert f"{digits.diffusion.schedule.at(250):.5f}" in html
    assert html.count("<img") == 5
    assert html.count("<svg") == 4
    a_s, a_t = (digits.diffusion.schedule.at(t) for t in (249, 250))
    for weight in (a_s.sqrt() * (1 - a_t / a_s), (a_t / a_s).sqrt() * (1 - a_s)):
        assert f"<td>{weight / (1 - a_t):.4f}</td>" in html
    assert "1000 of 1000" in equations.board(digits, image, 5000)
    assert "1 of 1000" in equations.board(digits, image, -3)


def test_the_curves_are_those_of_the_posterior_and_made_once(digits):
    diffusion = digits.diffusion
    lines = equations.over_time(diffusion)
    assert lines is equations.over_time(diffusion)
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


def test_charts_are_whole_svg():
    line = Line("a", [(1, 1e-3), (2, 0.0), (5, float("inf"))])
    figure = chart("x<sub>t</sub>", [line, line], log=True, mark=2)
    svg = ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])
    assert svg.get("aria-label") == "xt"
    assert len(svg.findall("circle")) == 2
    assert "nothing yet" in chart("empty", [Line("a", [])])
    zero = Line("b", [(1, 0.0), (2, 1e-3), (3, 1e-1)])
    assert "1e-03" in chart("x", [zero], log=True, mark=1)
    assert "1e-12" not in chart("x", [zero], log=True, mark=1)
    assert "polyline" in chart("x", [zero, Line("c", [(1, 0.0)])], log=True, mark=1)


# ---- uploads ---------------------------------------------------------------------------------


def test_an_upload_becomes_an_image_of_the_network(digits):
    photo = Image.fromarray(np.full((60, 90, 3), 200, np.uint8))
    image, note = uploads.read_upload("a.png", data_uri(photo), digits.data)
    assert image.shape == (1, 28, 28)
    assert (image == 200).all()
    assert "28x28" in note
    moving = data_uri(photo, "gif", save_all=True, append_images=[photo.rotate(90), photo])
    assert "its first frame alone is used" in uploads.read_upload("a.gif", moving, digits.data)[1]


def text_uri(text):
    return "data:image/png;base64," + base64.b64encode(text).decode()


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (text_uri(b"just text"), "is not an image, whatever its name says"),
        (data_uri(Image.new("1", (30_000, 30_000))), "far too many pixels"),
        (data_uri(Image.new("1", (8_000, 8_000))), "which is too many"),
        (data_uri(noise(), "jpeg")[:-400], "cannot be used"),
        ("", "larger than 8 MB"),
        ("data:image/png;base64,????", "did not arrive whole"),
        ("no uri at all", "did not arrive whole"),
        ("data:image/png;base64," + "A" * 11_000_000, "too large"),
    ],
)
def test_bad_uploads_are_named(data, says, digits):
    with pytest.raises(UserError, match=says):
        uploads.read_upload("photo.png", data, digits.data)


def test_a_mask_is_where_was_painted(digits):
    drawn = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    drawn.paste((255, 255, 255, 255), (0, 140, 280, 280))
    mask = uploads.read_mask(data_uri(drawn), digits.data)
    assert mask[15:].all()
    assert not mask[:13].any()
    with pytest.raises(UserError, match="paint it again"):
        uploads.read_mask(text_uri(b"no"), digits.data)
    with pytest.raises(UserError, match="the mask is too large"):
        uploads.read_mask(data_uri(Image.new("1", (4000, 4000))), digits.data)


def test_an_upload_waits_for_room(digits, monkeypatch):
    asked = []

    class Noted(PixelBudget):
        def reserve(self, n):
            asked.append(n)
            return super().reserve(n)

    monkeypatch.setattr(uploads, "PIXEL_BUDGET", Noted(10_000))
    uploads.read_upload("a.png", data_uri(noise()), digits.data)
    assert asked == [64 * 64]


def test_the_frames_of_a_file_are_not_counted(digits, monkeypatch):
    frames = [Image.new("L", (64, 64), i) for i in range(200)]
    moving = data_uri(frames[0], "gif", save_all=True, append_images=frames[1:])
    sought = []
    seek = GifImagePlugin.GifImageFile._seek
    monkeypatch.setattr(
        GifImagePlugin.GifImageFile,
        "_seek",
        lambda self, frame, *rest: sought.append(frame) or seek(self, frame, *rest),
    )
    assert "it moves" in uploads.read_upload("a.gif", moving, digits.data)[1]
    assert max(sought) <= 1


# ---- the gate --------------------------------------------------------------------------------


def posted(app, path, chunks):
    """The status of a request whose body comes in these chunks, and how many of them were read."""
    sent, read = [], []

    async def receive():
        if len(read) == len(chunks):
            return {"type": "http.disconnect"}
        read.append(chunks[len(read)])
        more = len(read) < len(chunks)
        return {"type": "http.request", "body": read[-1], "more_body": more}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], len(read)


def test_large_requests_are_refused_as_they_come():
    app = FastAPI(middleware=[Middleware(Gate)])

    @app.post("/{path:path}")
    async def take(path: str, body: list[int]) -> int:
        return len(body)

    assert posted(app, "/join", [b"[1,", b"2]"]) == (200, 2)
    assert posted(app, "/join", [b" " * 10**6] * 100) == (413, MAX_SENT // 10**6 + 1)
    assert posted(app, "/gradio_api/deep_link", [b"[1]"]) == (404, 0)
    assert MAX_SENT > uploads.MAX_BYTES * 4 / 3 + 10**6


# ---- models and runs -------------------------------------------------------------------------


def test_a_checkpoint_that_vanishes_or_changes(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(open_bytes("mnist"))
    store = ModelStore([str(path)], "cpu")
    first = store[str(path)]
    assert store[str(path)] is first
    path.unlink()
    with pytest.raises(UserError, match="no longer there"):
        _ = store[str(path)]
    path.write_bytes(open_bytes("mnist"))
    assert store[str(path)] is not first
    with pytest.raises(UserError, match="there is no model"):
        _ = store["other"]


def test_examples_are_real_digits_where_the_network_learned_them():
    store = ModelStore(["mnist"], "cpu")
    assert torch.equal(store.example("mnist", 2), load_images("mnist5k").images[2 * 97])
    assert torch.equal(store.example("mnist", 52), store.example("mnist", 2))
    assert store.real("mnist")
    with pytest.raises(UserError, match="there is no model"):
        store.example("other", 0)


def test_examples_of_a_set_that_is_on_this_machine(digits, tmp_path, monkeypatch):
    """Else the board says that the network made them."""
    path = str(tmp_path / "clothes.safetensors")
    config = replace(digits.config, root=str(tmp_path / "data"))
    save(path, digits.net, config, replace(digits.data, source="fashion-mnist"), 1, 1)
    assert not ModelStore([path], "cpu").real(path)
    (tmp_path / "data" / "FashionMNIST" / "raw").mkdir(parents=True)
    clothes = load_images("mnist5k")
    monkeypatch.setattr(models_module, "load_images", lambda source, root: clothes)
    store = ModelStore([path], "cpu")
    assert store.real(path)
    assert torch.equal(store.example(path, 2), clothes.images[2 * 97])
    for made in (True, False):
        html = equations.board(digits, clothes.images[0], 250, made=made)
        assert ("this network made" in html) == made


def test_other_examples_are_made_once_in_few_steps(digits, tmp_path):
    path = str(tmp_path / "other.safetensors")
    save(path, digits.net, digits.config, replace(digits.data, source="other"), 1, 1)
    store = ModelStore([path], "cpu")
    net, seen = store[path].net, []
    forward = net.forward
    net.forward = lambda x, *rest: seen.append(len(x)) or forward(x, *rest)
    image = store.example(path, 3)
    assert 0 < len(seen) <= EXAMPLE_STEPS
    settings = replace(digits.config.sample, sampler="ddim", eta=0.0)
    made = generate(path, 4, settings=settings).images[3]
    assert (image.int() - made.int()).abs().max() <= 2
    seen.clear()
    equations.board(store[path], store.example(path, 3), 250)
    assert seen == [1]


def open_bytes(name):
    from ddpm.checkpoint.checkpoint import WEIGHTS

    return (WEIGHTS / f"{name}.safetensors").read_bytes()


def test_a_run_is_looked_at_while_it_trains(tmp_path):
    assert "There is no run" in runs.look(tmp_path, None)
    run = tmp_path / "a"
    (run / "samples").mkdir(parents=True)
    (run / "config.toml").write_text("")
    assert list(runs.runs(tmp_path)) == ["a"]
    assert "has begun" in runs.look(tmp_path, "a")
    lines = [{"step": i, "images": 8 * i, "seconds": i, "loss": 1 / i} for i in range(1, 2000)]
    torn = '{"step": 2000, "ima'
    (run / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), torn]))
    Image.new("L", (8, 8)).save(run / "samples" / "0000001-ema.png")
    html = runs.look(tmp_path, "a")
    assert "training now" in html
    assert "step 1,999" in html
    assert html.count("<img") == 1
    assert "There is no run" in runs.look(tmp_path, "../../etc")
    assert list(runs.runs(run)) == ["a"]
    assert runs.look(run, "a") == html
    run = run.rename(tmp_path / "<b>&c")
    assert "&lt;b&gt;&amp;c: training now" in runs.look(tmp_path, "<b>&c")


def test_a_run_is_looked_at_anew_when_there_is_something_new(tmp_path):
    run, metrics = tmp_path / "a", tmp_path / "a" / "metrics.jsonl"
    (run / "samples").mkdir(parents=True)
    metrics.write_text("")
    stamps = [runs.stamp(run), runs.stamp(run)]
    assert stamps[0] == stamps[1]
    (run / "samples" / "0000001-ema.png").write_bytes(b"")
    stamps.append(runs.stamp(run))
    os.utime(metrics, (1e9, metrics.stat().st_mtime + 1))
    stamps.append(runs.stamp(run))
    os.utime(metrics, (1e9, 1e9))
    stamps.append(runs.stamp(run))
    assert len(set(stamps)) == 4


# ---- the command -----------------------------------------------------------------------------


def test_a_port_that_is_taken(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["demo", "--port", str(taken.getsockname()[1])]) == 1
    assert "try another --port" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_none(host, capsys):
    assert main(["demo", "mnist", "--host", host, "--port", str(free_port())]) == 1
    assert f"on {host} cannot be had" in capsys.readouterr().err


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_password_keeps_others_out(tmp_path):
    """Also where a proxy that is not there is set for everything."""
    import httpx

    port, log = free_port(), tmp_path / "log"
    words = ["demo", "mnist", "--port", str(port), "--password", "open sesame"]
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ddpm", *words], stdout=file, stderr=subprocess.STDOUT,
            cwd=tmp_path, env={**os.environ, **proxies, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while "the demo is at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the demo did not start"
            time.sleep(0.2)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            page = client.get("/")
            assert "images out of static" not in page.text
            asks = {"data": [], "fn_index": 0, "session_hash": "x"}
            for ask in (
                client.get("/config"),
                client.post("/gradio_api/queue/join", json=asks),
                client.get("/gradio_api/queue/data?session_hash=x"),
                client.post("/gradio_api/run/predict", json=asks),
                client.post("/login", data={"username": "ddpm", "password": "wrong"}),
            ):
                assert ask.status_code >= 400, ask.url
            right = {"username": "ddpm", "password": "open sesame"}
            assert client.post("/login", data=right).status_code == 200
            assert client.get("/config").status_code == 200
    finally:
        process.terminate()
        process.wait(20)


def test_a_checkpoint_that_is_not_there(capsys):
    assert main(["demo", "nowhere"]) == 1
    error = capsys.readouterr().err
    assert "there is no checkpoint at nowhere; name a run's folder" in error


def test_an_empty_password_is_refused(capsys):
    assert main(["demo", "--password", ""]) == 1
    assert "the password is empty" in capsys.readouterr().err


def test_the_warm_up_is_one_step(monkeypatch, capsys):
    def made(checkpoint, *, settings, device):
        raise UserError(f"asked for {settings.steps} step")

    monkeypatch.setattr(server, "generate", made)
    assert main(["demo"]) == 1
    assert "asked for 1 step" in capsys.readouterr().err


def test_without_gradio_a_word():
    code = (
        "import sys; sys.modules['gradio'] = None; from ddpm.cli.main import main; "
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'ddpm-from-scratch[demo]'" in done.stderr
