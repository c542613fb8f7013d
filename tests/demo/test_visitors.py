"""The demo for many visitors, of whom some mean no good: none keeps the others out."""

import json
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path

import psutil
import pytest

from ddpm.cli.main import main
from ddpm.demo.turns import Turns
from lazy import Module, optional
from servers import free_port, serving

optional("gradio")
httpx, queue = Module("httpx"), Module("ddpm.demo.queue")
filtering = Module("ddpm.demo.middleware")

TROUBLESHOOTING = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text("utf-8")
HEAVY = {"n": 64, "steps": 1000}
names = (f"visitor{i}" for i in count())


@pytest.fixture(scope="module")
def files_of_gradio(tmp_path_factory):
    return tmp_path_factory.mktemp("gradio")


@pytest.fixture(scope="module")
def demo(tmp_path_factory, files_of_gradio):
    folder, cache = tmp_path_factory.mktemp("demo"), str(files_of_gradio)
    with serving(folder, "mnist", GRADIO_TEMP_DIR=cache) as (address, process, log):
        yield address, psutil.Process(process.pid), log


@pytest.fixture(scope="module")
def client(demo):
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=demo[0], trust_env=False, timeout=60, limits=limits) as client:
        yield client


@pytest.fixture(scope="module")
def button(client):
    """The number of the function that makes images."""
    return number_of(client, "sample")


def number_of(client, name):
    functions = client.get("/config").json()["dependencies"]
    return next(d["id"] for d in functions if d["api_name"] == name)


@pytest.fixture(scope="module")
def soon(client, button):
    """Half a minute, or on a machine that is slow for now eight times what one needs alone."""
    return max(30, 8 * served(client, button))


def join(client, button, session, n=4, steps=8):
    settings = {"sampler": "ddim", "steps": steps, "eta": 0.0, "guidance": 1.0}
    data = {"model": "mnist", "n": n, "seed": 3, "settings": settings}
    ask = {"data": [data], "fn_index": button, "session_hash": session}
    return client.post("/gradio_api/queue/join", json=ask)


def messages(client, session):
    """What a visitor who listens is told, until all has ended."""
    path = f"/gradio_api/queue/data?session_hash={session}"
    with client.stream("GET", path) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def is_explained(answer):
    """Whether what was answered is in docs/troubleshooting.md."""
    return f"`{answer.json()['detail']}` | {answer.status_code} |" in TROUBLESHOOTING


def served(client, button):
    """How many seconds a new visitor waits for images."""
    start, session = time.monotonic(), next(names)
    assert join(client, button, session).status_code == 200
    last = [m for m in messages(client, session) if m["msg"] == "process_completed"][-1]
    assert last["success"], last
    assert "nfe" in json.dumps(last["output"])
    return time.monotonic() - start


@contextmanager
def listener(client, session):
    """Somebody who listens while the block lasts; yields what has been told so far."""
    told, stop = [], threading.Event()

    def listen():
        with suppress(httpx.HTTPError):  # the client may be closed before
            for message in messages(client, session):
                told.append(message)
                if stop.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        stop.set()


def cpu_seconds(process):
    times = process.cpu_times()
    return times.user + times.system


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("n", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_many_requests_of_one_visitor(client, button, soon, n):
    """One walk is under way, so many requests wait, and all others are refused."""
    session = next(names)
    join(client, button, session, **HEAVY)
    with listener(client, session):
        answers = [join(client, button, session, **HEAVY) for _ in range(n)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert queue.MAX_WAITING - 1 <= n - len(refused) <= queue.MAX_WAITING + 1
        assert all(map(is_explained, refused))
        assert served(client, button) < soon


@pytest.mark.parametrize("n", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_many_requests_under_as_many_names(client, button, soon, n):
    for _ in range(n):
        join(client, button, next(names))
    assert served(client, button) < soon


@pytest.mark.long
def test_memory_after_many_generations(demo, client, button):
    for _ in range(100):
        served(client, button)
    before = demo[1].memory_info().rss
    for _ in range(400):
        served(client, button)
    assert demo[1].memory_info().rss < 1.05 * before


def test_three_who_ask_for_all_they_can_and_listen(client, button, soon):
    greedy = [next(names) for _ in range(3)]
    for session in greedy:
        for _ in range(queue.MAX_WAITING):
            join(client, button, session, **HEAVY)
    with listener(client, greedy[0]), listener(client, greedy[1]), listener(client, greedy[2]) as t:
        until(lambda: any(m["msg"] == "process_generating" for m in t))
        assert served(client, button) < soon


@pytest.mark.skipif(sys.platform != "linux", reason="has one address of its own elsewhere")
@pytest.mark.parametrize("n", [12, pytest.param(100, marks=pytest.mark.long)])
def test_an_address_that_listens_under_many_names(demo, client, button, soon, n):
    """It leaves room to another address."""
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=demo[0], trust_env=False, timeout=60, limits=limits) as greedy,
        httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), base_url=demo[0],
                     trust_env=False, timeout=60) as other,
        ExitStack() as stack,
    ):  # fmt: skip
        sessions = [next(names) for _ in range(n)]
        answers = [join(greedy, button, session, **HEAVY) for session in sessions]
        taken = [a.status_code == 200 for a in answers]
        told = [
            stack.enter_context(listener(greedy, session))
            for session, is_taken in zip(sessions, taken, strict=True) if is_taken
        ]  # fmt: skip
        assert all(is_explained(a) for a in answers if a.status_code != 200)
        until(lambda: sum(any(m["msg"] == "process_generating" for m in t) for t in told) >= 8)
        assert served(other, button) < soon


def test_a_walk_that_nobody_listens_to_ends(demo, client, button):
    until(lambda: is_idle(demo[1]))
    session = next(names)
    join(client, button, session, **HEAVY)
    with listener(client, session) as told:
        until(lambda: any(m["msg"] == "process_generating" for m in told))
        until(lambda: not is_idle(demo[1]))
        join(client, button, next(names), **HEAVY)  # to which nobody ever does
    until(lambda: is_idle(demo[1]), 40)


def test_who_asks_again_and_again_is_always_heard(client, button):
    """Between two questions nobody listens, at whatever moment that is looked at."""
    session, begun = next(names), time.monotonic()
    while time.monotonic() - begun < queue.GRACE + 2:
        event = join(client, button, session, n=1, steps=1).json()["event_id"]
        time.sleep(0.5)
        told = [m["msg"] for m in messages(client, session) if m.get("event_id") == event]
        assert told[-1] == "process_completed"


def test_what_is_cancelled_is_one_request_alone(client, demo, button):
    """As a page does that asks for more before it knows that what it had has ended."""
    session = next(names)
    first = join(client, button, session, n=1, steps=1).json()["event_id"]
    ended = {"session_hash": session, "fn_index": -1, "event_id": first}
    assert {m["msg"] for m in messages(client, session)} >= {"process_completed"}
    second = join(client, button, session, n=1, steps=100).json()["event_id"]
    with listener(client, session) as told:
        until(lambda: any(m["msg"] == "process_generating" for m in told))
        client.post("/gradio_api/cancel", json=ended)
        until(lambda: any(m["msg"] == "process_completed" for m in told))
    assert "nfe" in json.dumps([m for m in told if m.get("event_id") == second])
    third = join(client, button, session, **HEAVY).json()["event_id"]
    with listener(client, session) as told:
        until(lambda: any(m["msg"] == "process_generating" for m in told))
        waits = join(client, button, session, n=1, steps=1).json()["event_id"]
        client.post("/gradio_api/cancel", json={**ended, "event_id": third})
        until(lambda: "nfe" in json.dumps([m for m in told if m.get("event_id") == waits]))
    until(lambda: is_idle(demo[1]), 40)


def is_idle(process):
    before = cpu_seconds(process)
    time.sleep(2)  # on a busy machine one that works may get nothing for a while
    return cpu_seconds(process) - before < 0.2


def test_images_that_wait_are_bounded_in_memory(demo, client, button, soon):
    """Each with an image of 10 MB, behind a walk that takes long."""
    before, session, large = demo[1].memory_info().rss, next(names), "x" * 10_000_000
    join(client, button, session, **HEAVY)
    with listener(client, session) as told:
        until(lambda: any(m["msg"] == "process_generating" for m in told))
        ask = {"data": [large], "fn_index": button, "session_hash": session}
        answers = [client.post("/gradio_api/queue/join", json=ask) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [503] * 4
        assert all(map(is_explained, answers[6:]))
        assert demo[1].memory_info().rss - before < 300e6
        assert served(client, button) < soon


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "a b"]
)
def test_another_name_that_points_here_gets_nothing(client, host):
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421, answer
        assert is_explained(answer)


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1", "[::1]:80"])
def test_own_names_are_served(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


ODD = [
    ("POST", "/gradio_api/queue/join", b"{"),
    ("POST", "/gradio_api/queue/join", b"[]"),
    ("POST", "/gradio_api/queue/join", b'{"data": [], "fn_index": 99999, "session_hash": "odd1"}'),
    ("POST", "/gradio_api/queue/join", b'{"data": [], "fn_index": -1, "session_hash": "odd2"}'),
    ("POST", "/gradio_api/queue/join", b'{"data": 7, "fn_index": "x", "session_hash": {}}'),
    ("POST", "/gradio_api/run/predict", b'{"data": [], "fn_index": 1}'),
    ("POST", "/gradio_api/cancel", b'{"session_hash": 1}'),
    ("POST", "/gradio_api/component_server", b"\xff"),
    ("POST", "/gradio_api/component_server", b'{"data": 1}'),
    ("GET", "/gradio_api/file=/etc/passwd", None),
    ("GET", "/gradio_api/file=../../../../etc/passwd", None),
    ("GET", "/gradio_api/queue/data?session_hash=nobody", None),
    ("GET", "/static/..%2f..%2fserver.py", None),
    ("GET", "/gradio_api/custom_component/x/client/y/..%2f..%2fz", None),
    ("DELETE", "/", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ODD)
def test_an_odd_request_is_one_line_in_the_log(demo, client, method, path, body):
    before = demo[2].read_text()
    headers = {"Content-Type": "application/json"}
    with suppress(httpx.RemoteProtocolError):  # an answer that had begun is cut
        assert "root:" not in client.request(method, path, content=body, headers=headers).text
    time.sleep(0.3)
    written = demo[2].read_text()[len(before) :]
    assert "Traceback" not in written
    assert written.count("\n") <= 1


@pytest.mark.parametrize(
    "data", [[], ["mnist"], [None], [{}], [[]], [{"model": {}}], [{"model": "mnist", "n": 0}] * 9]
)
def test_an_event_of_odd_values_is_one_line_in_the_log(demo, client, button, data):
    before, session = demo[2].read_text(), next(names)
    ask = {"data": data, "fn_index": button, "session_hash": session}
    client.post("/gradio_api/queue/join", json=ask)
    told = list(messages(client, session))
    assert not told or not next(m for m in told if m["msg"] == "process_completed")["success"]
    written = demo[2].read_text()[len(before) :]
    assert "Traceback" not in written
    assert written.count("\n") <= 1


def test_the_network_is_for_one_visitor_at_a_time():
    """And the visitors alternate, as far as their steps take the same time."""
    turns, made, inside = Turns(), [], []

    def items(name):
        for _ in range(5):
            inside.append(name)
            time.sleep(0.02)
            assert inside == [name]
            inside.clear()
            made.append(name)
            yield name

    def walk(name):
        list(turns.share(items(name), name))

    threads = [threading.Thread(target=walk, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 10
    assert sum(x != y for x, y in pairwise(made)) >= 4


def test_of_many_who_begin_at_once_none_waits_for_ever():
    """All have had as much time: newcomers must not change whose turn it is."""
    for _ in range(30):
        turns, begin, ended = Turns(), threading.Barrier(24), []

        def walk(turns=turns, begin=begin, ended=ended):
            begin.wait()
            ended.append(len(list(turns.share(iter("abc"), "a"))))

        threads = [threading.Thread(target=walk, daemon=True) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert ended == [3] * 24
    waiting = [object() for _ in range(300)]
    for me in waiting:
        with turns._changed:
            turns._arrive(me, "a")
        turns._waiting.add(me)
        assert turns._next() is waiting[0]


@pytest.mark.parametrize("visitors", ["aab", "abc"])
def test_a_short_walk_does_not_wait_for_long_ones(visitors):
    """Time is shared by visitors, not by steps or by walks: the last, whose steps are a tenth as
    long, has many while the others have one."""
    turns, made, begin = Turns(), [], threading.Barrier(3)

    def items(k, seconds):
        for _ in range(90 if k == 2 else 30):
            start = time.perf_counter()
            time.sleep(seconds)
            made.append((k, time.perf_counter() - start))
            yield k

    def walk(k):
        begin.wait()
        list(turns.share(items(k, 0.005 if k == 2 else 0.05), visitors[k]))

    threads = [threading.Thread(target=walk, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = max(i for i, (k, _) in enumerate(made) if k == 2)
    its = sum(seconds for k, seconds in made if k == 2)
    others = [seconds for k, seconds in made[:last] if k != 2]
    assert sum(others) <= len({*visitors[:2]}) * its + 4 * max(others)
    assert len(made) == 150


@pytest.mark.parametrize("length", [0, 1, 3_000_000])
def test_no_file_is_taken(client, files_of_gradio, length):
    files = [("files", (f"{i}.png", b"x" * length)) for i in range(3)]
    answer = client.post("/gradio_api/upload", files=files)
    assert answer.status_code == 404
    assert is_explained(answer)
    assert not [path for path in files_of_gradio.rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["run/sample", "api/sample", "call/sample", "stream/x"])
def test_nothing_is_made_past_the_queue(client, button, path):
    data = [{"model": "mnist"}]
    answer = client.post(f"/gradio_api/{path}", json={"data": data, "fn_index": button})
    assert answer.status_code == 404


def test_no_link_is_kept(client):
    """Which gradio would write to the disk."""
    assert client.get("/gradio_api/deep_link?session_hash=x").status_code == 404


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost.evil"])
def test_pages_of_other_sites_can_start_nothing(client, origin):
    ask = {"data": [], "fn_index": 0, "session_hash": next(names)}
    headers = {"Origin": origin}
    answer = client.post("/gradio_api/queue/join", json=ask, headers=headers)
    assert answer.status_code == 403
    assert is_explained(answer)
    own = {"Origin": str(client.base_url).rstrip("/")}
    assert client.get("/config", headers=own).status_code == 200


# ---- in this process -------------------------------------------------------------------------


@pytest.fixture
def blocks(monkeypatch):
    """A demo in this process, which looks every second for what has been cached a second ago."""
    from ddpm.demo import page
    from ddpm.demo.models import ModelStore
    from ddpm.demo.run_launcher import RunLauncher
    from ddpm.demo.server import launch

    monkeypatch.setattr(page, "CACHE", (1, 1))
    blocks = page.build_page(ModelStore(["mnist"], "cpu"), RunLauncher(Path("runs"), False))
    launch(blocks, str, "127.0.0.1", free_port(), (), None)
    yield blocks
    blocks.close()


def test_what_gradio_caches_is_deleted(blocks, tmp_path):
    old = tmp_path / "cached.png"
    old.write_bytes(b"x")
    blocks.temp_file_sets.append({str(old)})
    until(lambda: not old.exists())


# ---- with a password -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """`ddpm demo` with a password, in this process; also where a proxy that is not there is set for
    everything."""
    import gradio

    port, served = free_port(), []
    runs = str(tmp_path_factory.mktemp("locked"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "")
        patch.setattr(gradio.Blocks, "block_thread", lambda blocks: served.append(blocks))
        patch.setattr("ddpm.demo.server.signal.signal", lambda *_: None)  # this process's stay
        words = ["demo", "mnist", "--password", "open sesame", "--port", str(port), "--runs", runs]
        assert main([*words, "--device", "cpu"]) == 0
    yield f"http://127.0.0.1:{port}"
    served[0].close()


def test_a_password_keeps_others_out(locked):
    with httpx.Client(base_url=locked, trust_env=False) as client:
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


def all_paths(router):
    for route in router.routes:
        if hasattr(route, "path"):
            yield route.path
        else:  # a router within
            yield from all_paths(route.original_router)


def test_every_route_asks_for_the_password(locked):
    from gradio.routes import App

    from ddpm.demo.middleware import is_open
    from ddpm.demo.models import ModelStore
    from ddpm.demo.page import build_page
    from ddpm.demo.run_launcher import RunLauncher

    store, training = ModelStore(["mnist"], "cpu"), RunLauncher(Path("runs"), False)
    app = App.create_app(build_page(store, training))
    paths = {path.replace("{", "").replace("}", "") for path in all_paths(app.router)}
    paths |= {"/page/main.js", "/page/index.html", "/openapi.json", "/docs", "/redoc"}
    paths |= {"/gradio_api/openapi.json", "/gradio_api/info"}
    asked = 0
    with httpx.Client(base_url=locked, trust_env=False, timeout=30) as client:
        for path in sorted(paths):
            for method in ("GET", "POST"):
                answer = client.request(method, path)
                if is_open(path):
                    assert "images out of static" not in answer.text
                else:
                    asked += 1
                    assert answer.status_code == 401, path
        assert asked > 60
        right = {"username": "ddpm", "password": "open sesame"}
        assert client.post("/login", data=right).status_code == 200
        assert client.get("/config").status_code == 200
        assert "images out of static" in client.get("/").text


def test_a_cookie_that_was_made_up_opens_nothing(locked):
    for cookie in ("access-token-x=1", "access-token-=; access-token-unsecure-=", "\xff=;;;"):
        answer = httpx.get(f"{locked}/config", headers={"Cookie": cookie.encode("latin-1")})
        assert answer.status_code == 401
        assert is_explained(answer)


@pytest.mark.skipif(sys.platform != "linux", reason="has one address of its own elsewhere")
def test_who_guesses_keeps_no_other_address_out(locked):
    wrong = {"username": "ddpm", "password": "open says me"}
    right = {"username": "ddpm", "password": "open sesame"}
    assert (
        httpx.post(f"{locked}/login", data=right, timeout=60).status_code == 200
    )  # none wrong yet

    def guess():
        with httpx.Client(base_url=locked, trust_env=False, timeout=120) as client:
            client.post("/login", data=wrong)

    threads = [threading.Thread(target=guess) for _ in range(4)]
    for thread in threads:
        thread.start()
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=transport, base_url=locked, trust_env=False, timeout=60) as other:
        assert other.post("/login", data=right).status_code == 200
        assert other.get("/config").status_code == 200
    assert any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()


def test_each_wrong_password_costs_more_and_few_are_remembered():
    gate = filtering.RequestFilter(None)
    seconds = [gate.note_guess("192.0.2.1", True) for _ in range(12)]
    assert seconds == [1, 1, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert gate.note_guess("192.0.2.1", False) == 0
    assert gate.note_guess("192.0.2.1", True) == 1
    for i in range(3000):
        gate.note_guess(str(i), True)
    assert len(gate.wrong) == 1000


def test_guesses_are_slowed(locked):
    """However many of an address are made at once."""

    def guess():
        wrong = {"username": "ddpm", "password": "open says me"}
        codes.append(httpx.post(f"{locked}/login", data=wrong, timeout=120).status_code)

    right = {"username": "ddpm", "password": "open sesame"}
    assert (
        httpx.post(f"{locked}/login", data=right, timeout=60).status_code == 200
    )  # none wrong yet
    codes, start = [], time.monotonic()
    threads = [threading.Thread(target=guess) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = codes.count(400)
    assert answered + codes.count(429) == 30
    assert codes.count(429) >= 5
    assert time.monotonic() - start >= 0.9 * answered
