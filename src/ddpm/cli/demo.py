"""`ddpm demo`: images out of noise, live in the browser."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional

from ..checkpoint.run_dir import find_checkpoint
from ..config import option
from .common import Device


@dataclass(frozen=True)
class DemoOptions:
    """Open the demo: images out of noise, live in the browser."""

    checkpoints: Annotated[Positional[tuple[str, ...]], option("[CHECKPOINT ...]")] = ()
    """Runs' folders, .safetensors files or names of bundled weights: all of the latter, if none is
    named."""
    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """Who can reach it: 127.0.0.1 is this machine alone, 0.0.0.0 everyone on the network."""
    port: Annotated[int, Field(ge=1, le=65535), option("N", "-p")] = 7860
    """Where it listens."""
    password: Annotated[str | None, option("TEXT")] = None
    """Ask visitors for it; the user is ddpm."""
    runs: Annotated[str, option("FOLDER")] = "runs"
    """The folder of runs that can be looked at while they train, or the folder of one of them."""
    device: Device = None


def demo(options: DemoOptions) -> int:
    for name in options.checkpoints:
        find_checkpoint(name)

    from ..demo.server import serve
    from ..utils.device import check_device

    if options.device:
        check_device(options.device)
    serve(
        list(options.checkpoints), host=options.host, port=options.port,
        password=options.password, runs=options.runs, device=options.device,
    )  # fmt: skip
    return 0
