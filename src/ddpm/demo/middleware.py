"""What stands before the page: who may see it, and which requests are none of its own."""

import asyncio
import ipaddress
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..utils.errors import UserError, plain
from .queue import FairQueue, address_of
from .uploads import MAX_BYTES

STATIC = Path(__file__).parent / "static"
FILES = "/page/"  # where these are
# Nothing is loaded from elsewhere, and no other site may hold the page in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; style-src 'self' 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'self'; form-action 'self'",
    "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}  # fmt: skip
MAX_REQUEST = 3 * MAX_BYTES // 2  # bytes; base64 makes an upload longer by a third
MAX_RECEIVING = 8 * MAX_REQUEST  # bytes of all requests that are arriving
GUESS_SECONDS = 1.0  # that a wrong password costs, while its address can give no other
MAX_GUESS_SECONDS = 60.0  # which it is doubled up to, with each wrong one after FREE_GUESSES
FREE_GUESSES = 3
MAX_GUESSING = 5  # passwords of an address that wait to be told whether they are right
MAX_ADDRESSES = 1000  # whose guesses are remembered

# What the page that asks for the password is made of. All else is for those who have given it.
OPEN_PATHS = ("/", "/login", "/login/", "/theme.css", "/favicon.ico", "/robots.txt")
OPEN_FOLDERS = ("/static/", "/assets/", "/_app/", "/svelte/", "/gradio_api/startup-events")
# All that the page sends. Gradio has more: it runs functions past the queue, and stores files.
SENT = ("/login", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")

logger = logging.getLogger(__name__)


class RequestFilter:
    """ASGI middleware that refuses what the page never sends, with a status and a sentence.

    page    gives the page, which is served in place of gradio's, and with it static/
    hosts   names under which the page may be asked for, beside addresses in numbers: another
            site's name that points here is not among them
    gated   whether a password is asked for: without it 401, but for the page that asks

    Bodies of more than MAX_REQUEST bytes are refused as they arrive, before the whole of one is in
    memory; wrong passwords cost time; pages of other sites may send nothing; gradio's uploads and
    deep links, which store files on disk, are not there. What fails in any other way is one line
    in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        page: Callable[[], str] = str,
        hosts: Iterable[str] = (),
        gated: bool = False,
    ):
        self.app, self.page, self.hosts, self.gated = app, page, frozenset(hosts), gated
        self.files = StaticFiles(directory=STATIC)
        self.receiving = 0
        self.guessing: Counter[str] = Counter()
        self.wrong: OrderedDict[str, int] = OrderedDict()  # guesses of an address
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent: list[Message] = []
        scope["bytes"] = 0

        async def limited_receive() -> Message:
            message = await receive()
            n = len(message.get("body", b""))
            scope["bytes"] += n
            self.receiving += n
            if scope["bytes"] > MAX_REQUEST:
                raise HTTPException(413, f"requests may have {MAX_REQUEST:,} bytes at most")
            if self.receiving > MAX_RECEIVING:
                raise HTTPException(503, "too much is arriving at once: try again in a minute")
            return message

        async def noting_send(message: Message) -> None:
            sent[:] = [message]
            await send(message)

        try:
            if refused := self.refusal(scope):
                await refused(scope, receive, send)
            elif scope["method"] == "POST" and scope["path"].rstrip("/") == "/login":
                await self.guess(scope, limited_receive, noting_send)
            else:
                with self.listening(scope):
                    await self.answering(scope)(scope, limited_receive, noting_send)
        except Exception as error:  # whatever an odd request does
            path = plain(f"{scope['method']} {scope['path']}", 200)
            logger.warning("%s failed: %s", path, plain(repr(error), 300))
            if not sent:
                answer = {"detail": "this request could not be understood"}
                await JSONResponse(answer, 400)(scope, receive, send)
            elif sent[-1]["type"] == "http.response.start" or sent[-1].get("more_body"):
                await send({"type": "http.response.body"})
        finally:
            self.receiving -= scope["bytes"]

    def refusal(self, scope: Scope) -> ASGIApp | None:
        """Return the answer to a request that goes no further."""
        if not is_own_host(header(scope, b"host"), self.hosts):
            return error_response(
                421, "this page is not at that address: open it by the one it told"
            )
        origin = header(scope, b"origin")
        if origin and not is_own_host(origin.partition("://")[2], self.hosts):
            return error_response(403, "pages of other sites may send nothing here")
        if self.gated and not is_open(scope["path"]) and not has_logged_in(scope):
            return error_response(401, "this page asks for a password: open / to give it")
        if scope["path"].endswith("/deep_link") or (
            scope["method"] not in ("GET", "HEAD") and scope["path"].rstrip("/") not in SENT
        ):
            return error_response(404, "this page has nothing there")
        return None

    def answering(self, scope: Scope) -> ASGIApp:
        """Return what answers: our own page and files, else gradio, which asks for the password."""
        path: str = scope["path"]
        if scope["method"] in ("GET", "HEAD") and (not self.gated or has_logged_in(scope)):
            if path == "/":
                return self.front
            if path.startswith(FILES):
                scope["path"] = path.removeprefix(FILES.rstrip("/"))
                return with_headers(self.files)
        return self.app

    async def front(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page, for which networks may have to be read."""
        try:
            answer: ASGIApp = HTMLResponse(await run_in_threadpool(self.page), headers=HEADERS)
        except UserError as error:
            answer = error_response(503, str(error))
        await answer(scope, receive, send)

    async def guess(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one who gives a password: of an address one after the other, and the later the
        more of them have been wrong."""
        address = address_of(Request(scope))
        lock = self.locks.setdefault(address, asyncio.Lock())

        async def slow_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self.note_guess(address, message["status"] >= 400))
            await send(message)

        if self.guessing[address] >= MAX_GUESSING:
            refused = error_response(429, "too many wrong passwords: try again in a minute")
            return await refused(scope, receive, send)
        self.guessing[address] += 1
        try:
            async with lock:
                await self.app(scope, receive, slow_send)
        finally:
            self.guessing -= Counter([address])  # which forgets those that are zero

    def note_guess(self, address: str, wrong: bool) -> float:
        """Return for how many seconds the answer to a guess is kept back."""
        guesses = self.wrong.pop(address, 0)
        if not wrong:
            return 0.0
        self.wrong[address] = guesses + 1
        if len(self.wrong) > MAX_ADDRESSES:
            self.wrong.popitem(last=False)
        doubled = min(max(0, guesses + 1 - FREE_GUESSES), 10)
        return min(GUESS_SECONDS * 2.0**doubled, MAX_GUESS_SECONDS)

    def listening(self, scope: Scope) -> Any:
        """Return a context in which the queue knows that the visitor is there, where this is what
        the request is for: an open page, or one that listens to what it has asked for."""
        queue = scope["app"].get_blocks()._queue if hasattr(scope["app"], "get_blocks") else None
        folder, _, name = scope["path"].rpartition("/")
        if not isinstance(queue, FairQueue):
            return nullcontext()
        if folder.endswith("/heartbeat"):
            return queue.listening(name)
        if scope["path"].endswith("/queue/data"):
            asked = parse_qs(scope["query_string"].decode("latin-1"))
            return queue.listening(asked.get("session_hash", [""])[0])
        return nullcontext()


def with_headers(app: ASGIApp) -> ASGIApp:
    """Return an app whose answers are asked for anew each time: they change with the version."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-cache"),
                                      (b"x-content-type-options", b"nosniff")]  # fmt: skip
            await send(message)

        await app(scope, receive, send_with)

    return answer


def error_response(status: int, detail: str) -> ASGIApp:
    return JSONResponse({"detail": detail}, status)


def header(scope: Scope, name: bytes) -> str:
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == name), "")


def own_hosts(host: str, names: Iterable[str] = ()) -> set[str]:
    """Return the names of this machine, that at which the page listens, and those it was given."""
    names = {host, *names, "localhost", socket.gethostname(), socket.getfqdn()}
    return {name.lower() for name in names | {f"{socket.gethostname()}.local"}}


def is_own_host(host: str, own: frozenset[str]) -> bool:
    """Return whether a Host header is one of these names, or an address in numbers, which no other
    site can have point here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name := host.rpartition(":")[0] or host) and name.lower().rstrip(".") in own
    return True


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def has_logged_in(scope: Scope) -> bool:
    """Return whether a request has the cookie that the login gives."""
    app = scope["app"]
    try:
        cookies = SimpleCookie(header(scope, b"cookie"))
    except CookieError:
        return False
    names = (f"access-token-{kind}{app.cookie_id}" for kind in ("", "unsecure-"))
    return any(name in cookies and cookies[name].value in app.tokens for name in names)
