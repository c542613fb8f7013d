"""The demo's server: on this machine alone, unless told otherwise."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from ..generation.generate import generate
from ..utils.errors import UserError, first_line
from .models import ModelStore

STATIC = Path(__file__).parent / "static"
WAITING_ROOM = 64  # visitors' wishes in the queue at most
PAGES = 24  # whose films, masks and images are kept; of more, the one that has been idle longest


def serve(
    checkpoints: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    runs: str | Path = "runs",
    device: str | None = None,
    block: bool = True,
) -> str:
    """Open the page; returns its address once it is there, and with `block` when it is closed.

    Raises UserError where gradio is missing, a checkpoint cannot be loaded, the password is empty
    or the port is taken.
    """
    if password is not None and not password.strip():
        raise UserError(
            "the password is empty and would keep nobody out: choose another --password"
        )
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is told to anyone
    try:
        import gradio as gr
        from starlette.middleware import Middleware

        from .gate import Gate
        from .page import page
    except ImportError:
        raise UserError("the demo needs gradio: pip install 'ddpm-from-scratch[demo]'") from None
    for key in ("no_proxy", "NO_PROXY"):  # gradio asks its own page whether it is there
        known = [name] if (name := os.environ.get(key)) else []
        os.environ[key] = ",".join([*known, "localhost", "127.0.0.1", "::1", host])
    store = ModelStore(checkpoints, device)
    first = store[store.names[0]]  # which the first visitor need not warm
    generate(first, settings=replace(first.config.sample, steps=1), device=store.device)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    system = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    blocks = page(store, Path(runs))
    blocks.queue(max_size=WAITING_ROOM, default_concurrency_limit=4)
    try:
        _, address, _ = blocks.launch(
            server_name=f"[{host}]" if ":" in host else host, server_port=port,
            quiet=True, share=False, prevent_thread_lock=True,
            auth=None if password is None else ("ddpm", password), show_error=True,
            footer_links=[], css_paths=STATIC / "style.css", ssr_mode=False,
            pwa=False, enable_monitoring=False, mcp_server=False, run_history=False,
            max_file_size=1,  # bytes: uploads travel in events, never through gradio's files
            state_session_capacity=PAGES,
            app_kwargs={"middleware": [Middleware(Gate)]},
            theme=gr.themes.Base(
                primary_hue="orange", neutral_hue="gray", font=system,
                font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
            ),
        )  # fmt: skip
    except OSError:
        raise UserError(
            f"port {port} on {host} cannot be had: try another --port, or --host"
        ) from None
    except Exception as error:  # what is between the page and its own server, as proxies are
        raise UserError(f"the page at {host}, port {port}: {first_line(error)}") from None
    if host not in ("127.0.0.1", "localhost", "::1") and not password:
        print(
            "note: anyone who can reach this machine can use the page: --password", file=sys.stderr
        )
    print(f"the demo is at {address}" + (" (user ddpm)" if password else "") + "; Ctrl-C ends it")
    if block:
        blocks.block_thread()
    return str(address)
