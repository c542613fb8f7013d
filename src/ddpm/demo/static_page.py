"""A page that needs no server: a network as ONNX, which the visitor's browser runs."""

import gzip
import html
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ..checkpoint.checkpoint import Checkpoint, load, without_guide, without_paths
from ..checkpoint.header import PRETRAINED
from ..checkpoint.onnx import require_libraries, write_onnx
from ..checkpoint.run_dir import is_diffusers
from ..config import SampleConfig
from ..core.sampling import timesteps
from ..generation.generate import check_memory, guide_of, trajectories
from ..utils.errors import UserError
from ..utils.files import atomic_write, is_occupied, make_folder, require_writable
from ..utils.images import to_uint8
from .pictures import png_bytes
from .runtime import Runtime, read_runtime

ALONE = Path(__file__).parent / "static" / "alone"
INDEX, SCRIPT, WASM, NETWORK, FILM, MODEL = (
    "index.html", "runtime/ort.js", "runtime/ort.wasm.gz", "network.onnx.gz", "film.png",
    "model.json",
)  # fmt: skip
MAX_STEPS, STEPS = 100, 50  # that a browser is asked for; that the slider offers at least
COLUMNS = 16  # of the pictures in the film
SEED, LABEL = 0, 0  # of the film
WHAT = {
    "mnist": "Digits", "mnist5k": "Digits", "fashion-mnist": "Clothes", "cifar10": "Objects",
    "celeba": "Faces",
}  # fmt: skip

logger = logging.getLogger(__name__)


class Packed(NamedTuple):
    """A file that is gzipped in the folder: its name there and its bytes."""

    name: str
    bytes: bytes

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "bytes": len(self.bytes)}


def write_page(
    name: str | Path, folder: Path, runtime: str | Path | None = None, overwrite: bool = False
) -> int:
    """Write the page of a network to a folder, new or empty, and return its size in bytes.

    `name` is a path or bundled weights, `runtime` the npm package onnxruntime-web (see
    `read_runtime`). The page computes as `generate` does: the same image for the same seed. No
    name of a folder of this machine gets into it. `overwrite`: files of the page replace those of
    the same names.

    Raise UserError where the folder is not empty, the network is not one that the page can run, or
    something that is needed is missing.
    """
    if is_diffusers(Path(name)):
        raise UserError(f"{name} is of diffusers: ddpm convert {name} x.safetensors, and show that")
    checkpoint = load(name)
    check_network(checkpoint)
    if is_occupied(folder) and not (overwrite and folder.is_dir()):
        raise UserError(f"{folder} is not empty: name another folder, or add --overwrite")
    require_libraries()
    require_writable(folder)
    command = {
        "name": shown_name(name), "guided": checkpoint.guide is not None,
        "precision": checkpoint.config.sample.precision, "churn": checkpoint.config.sample.churn,
    }  # fmt: skip
    checkpoint = without_guide(without_paths(checkpoint))
    settings = page_settings(checkpoint.config.sample)
    page = page_files(checkpoint, settings, read_runtime(runtime), command)
    for path, data in page.items():
        make_folder((folder / path).parent)
        with atomic_write(folder / path) as beside:
            beside.write_bytes(data)
    return sum(map(len, page.values()))


def check_network(checkpoint: Checkpoint) -> None:
    """Raise UserError for a network that the page cannot run."""
    if checkpoint.diffusion.learned_variance:
        raise UserError("this network learned the variance of its steps, which a page cannot use")
    if (channels := checkpoint.data.channels) not in (1, 3, 4):
        raise UserError(f"a page shows images of 1, 3 or 4 channels, and these have {channels}")


def page_settings(settings: SampleConfig) -> SampleConfig:
    """Return the settings as far as a browser follows them."""
    if settings.steps > MAX_STEPS:
        logger.info(f"the page takes {MAX_STEPS} steps, not {settings.steps:,}")
    if settings.churn:
        logger.info("the page samples without churn")
    return replace(settings, steps=min(settings.steps, MAX_STEPS), churn=0.0, precision="no")


def shown_name(name: str | Path) -> str:
    """Return how the page calls the network in a command: bundled weights by their name."""
    return str(name) if name in PRETRAINED else "MODEL"


def page_files(
    checkpoint: Checkpoint, settings: SampleConfig, runtime: Runtime, command: dict[str, Any]
) -> dict[str, bytes]:
    """Return the bytes of every file of the page by its path; that of the page itself is last.

    `command`: what the network is called in a command, whether it is guided by another there, in
    what precision it computes, and its churn.
    """
    wasm, network = Packed(WASM, packed(runtime.wasm)), Packed(NETWORK, packed(onnx(checkpoint)))
    about = describe(checkpoint, settings) | {
        **command, "runtime": {**wasm.as_dict(), "version": runtime.version},
        "network": network.as_dict(), "film": {"name": FILM, "columns": COLUMNS},
    }  # fmt: skip
    own = {path.relative_to(ALONE).as_posix(): path for path in ALONE.rglob("*") if path.is_file()}
    title = f"{WHAT.get(checkpoint.data.source, 'Images')} out of noise"
    index = own.pop(INDEX).read_text("utf-8").replace("{{title}}", html.escape(title))
    return {
        **{name: path.read_bytes() for name, path in own.items()},
        SCRIPT: runtime.script,
        wasm.name: wasm.bytes,
        network.name: network.bytes,
        FILM: film(checkpoint, settings),
        MODEL: json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode(),
        INDEX: index.encode(),
    }


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def onnx(checkpoint: Checkpoint) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(checkpoint, path)
        return path.read_bytes()


def describe(checkpoint: Checkpoint, settings: SampleConfig) -> dict[str, Any]:
    """Return what the page must know of a network to sample from it: the schedule, what is
    predicted, and the times of any number of steps."""
    c, diffusion = checkpoint, checkpoint.diffusion
    schedule, T = diffusion.schedule, diffusion.T
    most = min(T, max(STEPS, settings.steps))
    return {
        "source": c.data.source,
        "classes": c.data.classes,
        "shape": c.data.shape,
        "background": c.config.background,
        "parameters": c.parameters,
        "T": T,
        "target": diffusion.target,
        "sigma_data": diffusion.sigma_data,
        "alpha_bar": schedule.alpha_bar.tolist(),
        "scale": None if schedule.scale is None else schedule.scale.tolist(),
        "times": {
            n: timesteps(schedule, n, settings.spacing, settings.sigma_min)
            for n in range(1, most + 1)
        },
        "settings": asdict(settings),
        "opening": {"seed": SEED, "label": LABEL if c.conditional else None},
    }


def film(checkpoint: Checkpoint, settings: SampleConfig) -> bytes:
    """Return as a PNG what the page shows while the network is on its way: x_t of each state of the
    image of SEED, and then each x̂_0 but the first state's, row by row."""
    y = torch.tensor([LABEL]) if checkpoint.conditional else None
    guide = guide_of(checkpoint, settings)
    check_memory(checkpoint, 1, 1, settings, y is not None, guide)
    states = list(trajectories(checkpoint, 1, range(1), SEED, y, settings))
    x0 = [state.x0 for state in states if state.x0 is not None]
    pictures = to_uint8(torch.cat([*(state.x for state in states), *x0]))
    return png_bytes(pictures, COLUMNS, gap=0)
