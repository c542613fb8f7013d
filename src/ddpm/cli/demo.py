"""`ddpm demo`: images out of noise, live in the browser."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, UseAppendAction

from ..checkpoint.run_dir import find_checkpoint
from ..config import option
from ..utils.errors import UserError
from .common import Overwrite, say


@dataclass(frozen=True)
class DemoOptions:
    """Open the demo: watch images come out of noise, live in the browser."""

    checkpoints: Annotated[Positional[tuple[str, ...]], option("[CHECKPOINT ...]")] = ()
    """Runs' folders, .safetensors files or names of bundled weights: all of the latter, if none is
    named."""
    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """Who can reach it: 127.0.0.1 is this machine alone, 0.0.0.0 everyone on the network."""
    port: Annotated[int, Field(ge=1, le=65535), option("N", "-p")] = 7860
    """The port it listens on."""
    name: Annotated[UseAppendAction[tuple[str, ...]], option("NAME")] = ()
    """Host name that a reverse proxy serves it by, such as demo.example.org; may be repeated."""
    password: Annotated[str | None, option("TEXT")] = None
    """Ask visitors for this password; the user is ddpm."""
    runs: Annotated[str, option("FOLDER")] = "runs"
    """The folder of runs that can be looked at while they train, or the folder of one of them."""
    static: Annotated[str | None, option("DIR")] = None
    """Write a static page to this folder, new or empty, and serve nothing: one network, mnist by
    default, runs in the visitor's browser, so any web host can show it. Needs the extra onnx."""
    runtime: Annotated[str | None, option("PATH")] = None
    """For --static: the npm package onnxruntime-web, unpacked or as .tgz. By default npm fetches
    it."""
    overwrite: Overwrite = False
    device: Annotated[str | None, option("DEVICE")] = None
    """cpu, cuda, cuda:1, mps or xpu. By default the best that this machine has; on a Mac, cpu."""


def demo(options: DemoOptions) -> int:
    if options.static is not None:
        return write_static(options, options.static)
    for name in options.name:
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(f"--name {name}: give the name alone, such as demo.example.org")
    for name in options.checkpoints:
        find_checkpoint(name)
    if options.runtime is not None or options.overwrite:
        raise UserError("--runtime and --overwrite are for a page without a server: add --static")

    from ..demo.server import serve
    from ..utils.device import check_device

    if options.device:
        check_device(options.device)
    serve(
        list(options.checkpoints), host=options.host, port=options.port, names=options.name,
        password=options.password, runs=options.runs, device=options.device,
    )  # fmt: skip
    return 0


def write_static(options: DemoOptions, folder: str) -> int:
    """Write the page of one network to a folder."""
    if len(options.checkpoints) > 1:
        raise UserError("a page without a server shows one network: name one alone")
    if options.password is not None or options.name:
        raise UserError(
            "a page without a server has no password and no names: leave --password and --name out"
        )

    name = options.checkpoints[0] if options.checkpoints else "mnist"
    if not os.path.exists(name):
        find_checkpoint(name)

    from ..demo.static_page import write_page

    size = write_page(name, Path(folder), options.runtime, options.overwrite)
    say(
        f"{folder}: {size / 1e6:.1f} MB for any web host; to look at it here: "
        f"python -m http.server --directory {folder}"
    )
    return 0
