"""Serve the demo: on this machine alone, unless told otherwise."""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from ..generation.generate import generate
from ..utils.errors import UserError, first_line
from .models import ModelStore
from .run_launcher import RunLauncher

if TYPE_CHECKING:
    import gradio as gr

MAX_QUEUE = 64  # requests that wait at once
MAX_SESSIONS = 24  # open pages whose state is kept; of more, the longest idle lose theirs
USER = "ddpm"
LOCAL = ("localhost", "127.0.0.1", "::1")

logger = logging.getLogger(__name__)


def serve(
    checkpoints: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    names: Sequence[str] = (),
    password: str | None = None,
    runs: str | Path = "runs",
    device: str | None = None,
    block: bool = True,
) -> str:
    """Serve the page and return its address: once it can be opened, or with `block` once the
    server is stopped.

    checkpoints  paths or names of bundled weights, which visitors choose from; none: all bundled
    names        that a proxy before the page has for it
    password     ask visitors for it, with the user name "ddpm"
    runs         the folder whose runs can be watched, or one run's own

    Raise UserError where gradio is missing, a checkpoint cannot be loaded, the password is empty,
    or the port is taken.
    """
    if password is not None and not password.strip():
        raise UserError("the password is empty and would keep nobody out: give another --password")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # send nothing to anyone
    try:
        from .page import build_page, page_html
    except ImportError:
        raise UserError('the demo needs gradio: pip install "ddpm-from-scratch[demo]"') from None
    store = ModelStore(checkpoints, device)
    warm_up(store)
    local = host in LOCAL and not names
    training = RunLauncher(Path(runs), allowed=local or password is not None)
    blocks = build_page(store, training)
    address = launch(blocks, lambda: page_html(store, training), host, port, names, password)
    ask_once(address, password)
    Thread(target=warm_up_plane, daemon=True).start()
    if not local and not password:
        logger.warning("anyone who can reach this machine can use the page: set --password")
    user = f" (user {USER})" if password else ""
    print(f"the demo is at {address}{user}; press Ctrl-C to stop it")
    if block:
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):  # as Ctrl-C: a run that was begun here saves
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                with suppress(ValueError):  # in a thread
                    signal.signal(number, signal.default_int_handler)
        blocks.block_thread()
    return address


def warm_up(store: ModelStore) -> None:
    """Run the first network once, so that the first visitor need not wait for that."""
    checkpoint = store[store.names[0]]
    settings = replace(checkpoint.config.sample, steps=1)
    generate(checkpoint, settings=settings, device=store.device)


def ask_once(address: str, password: str | None) -> None:
    """Send a first request through the queue, which takes a second, so that no visitor waits."""
    if password is not None:
        return
    import httpx

    ask = {"data": [{}], "fn_index": 0, "session_hash": "first"}
    with suppress(httpx.HTTPError), httpx.Client(trust_env=False, timeout=10) as client:
        client.post(f"{address}gradio_api/queue/join", json=ask)
        client.get(f"{address}gradio_api/queue/data?session_hash=first")


def warm_up_plane() -> None:
    """Train a network for points once: the first time takes seconds more."""
    from .plane import Networks, plane

    for _ in plane({"seconds": 0.1}, Networks()):
        pass


def launch(
    blocks: "gr.Blocks",
    page: Callable[[], str],
    host: str,
    port: int,
    names: Sequence[str],
    password: str | None,
) -> str:
    """Start the server and return its address; `page` gives the page.

    Raise UserError where it cannot be reached.
    """
    from starlette.middleware import Middleware

    from .middleware import RequestFilter, own_hosts
    from .queue import FairQueue

    bypass_proxy(host)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=4)
    FairQueue.of(blocks._queue)
    gate = Middleware(
        RequestFilter, page=page, hosts=own_hosts(host, names), gated=password is not None
    )  # fmt: skip
    try:
        _, address, _ = blocks.launch(
            server_name=f"[{host}]" if ":" in host else host, server_port=port,
            quiet=True, share=False, prevent_thread_lock=True, show_error=True,
            auth=None if password is None else (USER, password),
            footer_links=[], ssr_mode=False,
            pwa=False, enable_monitoring=False, mcp_server=False, run_history=False,
            state_session_capacity=MAX_SESSIONS,
            app_kwargs={"middleware": [gate]},
        )  # fmt: skip
    except OSError:
        raise UserError(
            f"cannot listen at {host}, port {port}: try another --port, or --host"
        ) from None
    except Exception as error:  # gradio fails to open its own page, through a proxy for example
        raise UserError(
            f"cannot open the page at {host}, port {port}: {first_line(error)}"
        ) from None
    return str(address)


def bypass_proxy(host: str) -> None:
    """Let requests to this machine pass by any proxy: gradio asks for its own page as it starts."""
    for key in ("no_proxy", "NO_PROXY"):
        known = [value] if (value := os.environ.get(key)) else []
        os.environ[key] = ",".join([*known, *LOCAL, host])
