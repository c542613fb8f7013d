"""The demo's server: on this machine alone, unless told otherwise."""

import logging
import os
import sys
from pathlib import Path

from ..errors import UserError
from ..generate import generate
from .shelf import Shelf

WAITING_ROOM = 64  # visitors' wishes in the queue at most


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

    Raises UserError where gradio is missing, a checkpoint cannot be loaded or the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is told to anyone
    try:
        import gradio as gr

        from .page import page
    except ImportError:
        raise UserError("the demo needs gradio: pip install 'ddpm-from-scratch[demo]'") from None
    shelf = Shelf(checkpoints, device)
    for name in shelf.names:
        shelf[name]  # what cannot be loaded is named now, not to a visitor
    generate(shelf[shelf.names[0]], 16, device=shelf.device)  # the first visitor need not warm it
    logging.getLogger("httpx").setLevel(logging.WARNING)
    system = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    blocks = page(shelf, Path(runs))
    blocks.queue(max_size=WAITING_ROOM, default_concurrency_limit=4)
    try:
        _, address, _ = blocks.launch(
            server_name=host, server_port=port, quiet=True, share=False, prevent_thread_lock=True,
            auth=("ddpm", password) if password else None, show_error=True, footer_links=[],
            css_paths=Path(__file__).parent / "style.css", ssr_mode=False, pwa=False,
            enable_monitoring=False, mcp_server=False, run_history=False,
            max_file_size=1,  # bytes: uploads travel in events, never through gradio's files
            state_session_capacity=256,
            theme=gr.themes.Base(
                primary_hue="orange", neutral_hue="gray", font=system,
                font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
            ),
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"port {port} on {host} cannot be had ({error}): try another --port"
        ) from None
    if host not in ("127.0.0.1", "localhost", "::1") and not password:
        print(
            "note: anyone who can reach this machine can use the page: --password", file=sys.stderr
        )
    print(f"the demo is at {address}" + (" (user ddpm)" if password else "") + "; Ctrl-C ends it")
    if block:
        blocks.block_thread()
    return str(address)
