"""The page: what is sent when it is opened, and the functions that it calls, each through the
queue.

All that is drawn is drawn by the scripts in static/. To add a function, write it here and name it
in FUNCTIONS.
"""

import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor, nn

from ..generation.generate import Edit
from ..utils.errors import UserError, plain, printable
from ..utils.images import to_float
from . import equations, requests, runs
from .middleware import STATIC
from .models import NUM_EXAMPLES, ModelStore
from .pictures import film, png
from .plane import Networks
from .plane import plane as plane_frames
from .queue import NETWORK, SLOTS, address_of
from .run_launcher import MIN_PHOTOS, RunLauncher
from .trajectory import frames
from .turns import Turns
from .uploads import MAX_BYTES, read_frames, read_mask

CACHE = (600, 600)  # seconds between looks for files that gradio has cached, and their age
# The images of so many visitors are under way at once; the others see their place in the queue.
IN_TURNS: dict[str, Any] = {"concurrency_limit": SLOTS, "concurrency_id": NETWORK}

logger = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass
class Demo:
    """What the functions of the page share."""

    store: ModelStore
    training: RunLauncher
    turns: Turns
    networks: Networks = field(default_factory=Networks)

    @property
    def runs(self) -> Path:
        return self.training.runs


def sample(demo: Demo, value: Json, visitor: str) -> Iterator[Json]:
    """Images out of noise, frame after frame: see requests.SampleRequest and trajectory.frames."""
    request = requests.read(requests.SampleRequest, value)
    checkpoint = demo.store[request.model]
    steps = frames(checkpoint, request, edit_of(demo, request))
    yield from filter(None, demo.turns.share(steps, visitor))


def edit_of(demo: Demo, request: requests.SampleRequest) -> Edit | None:
    """Return what the images come from, where not from noise alone."""
    if request.picture is None:
        return None
    image, _ = demo.store.image(request.model, request.picture)
    if request.mask is None:
        return Edit(image=image, strength=request.strength)
    mask = read_mask(request.mask, demo.store[request.model].data)
    if not mask.any():
        raise UserError("Nothing is painted over yet: draw on the image first")
    return Edit(image=image, mask=mask, rounds=request.rounds)


def picture(demo: Demo, value: Json, visitor: str) -> Json:
    """A picture as a network takes it, and a note about it."""
    request = requests.read(requests.PictureRequest, value)
    image, note = demo.store.image(request.model, request.picture)
    return {"src": png(image[None]), "note": note}


def whiteboard(demo: Demo, value: Json, visitor: str) -> Json:
    """An image at time t, with all numbers: see equations.whiteboard."""
    request = requests.read(requests.WhiteboardRequest, value)
    image, note = demo.store.image(request.model, request.picture)
    checkpoint = demo.store[request.model]
    return {
        **equations.whiteboard(checkpoint, image, request.t, request.seed, request.pixel),
        "note": note,
    }


def curves(demo: Demo, value: Json, visitor: str) -> Json:
    """ᾱ, the SNR, and the posterior's weights and variances over t."""
    request = requests.read(requests.PictureRequest, value)
    return dict(equations.curves(demo.store[request.model].diffusion))


def classify(demo: Demo, value: Json, visitor: str) -> Json:
    """The classifier's probabilities of each class in each frame, which is one image."""
    request = requests.read(requests.FramesRequest, value)
    net = demo.store.classifier(request.model)
    if net is None:
        raise UserError("there is no classifier for the images of this network")
    data = demo.store[request.model].data
    images = [uint8(frame, data.channels) for frame in read_frames(request.frames)]
    if any(image.shape != data.shape for image in images):
        raise UserError("the classifier takes single images: load the page anew")
    return {"classes": data.classes, "probabilities": probabilities(net, images)}


def uint8(frame: Any, channels: int) -> Tensor:
    """Return a picture as a uint8 image (C, H, W)."""
    import numpy as np
    import torch

    array = np.asarray(frame.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())


def probabilities(net: nn.Module, images: list[Tensor]) -> list[list[float]]:
    """Return the softmax of a classifier's logits for each image."""
    import torch

    with torch.inference_mode():
        device = next(net.parameters()).device
        _, logits = net(to_float(torch.stack(images)).to(device))
        return [[round(p, 4) for p in row] for row in logits.softmax(1).tolist()]


def save_film(demo: Demo, value: Json, visitor: str) -> Json:
    """The frames as one animated file."""
    request = requests.read(requests.FramesRequest, value)
    return {"src": film(read_frames(request.frames), request.kind)}


def plane(demo: Demo, value: Json, visitor: str) -> Iterator[Json]:
    """Diffusion of points in the plane: see plane.plane."""
    yield from demo.turns.share(plane_frames(value, demo.networks), visitor)


def list_runs(demo: Demo, value: Json, visitor: str) -> Json:
    """The runs that can be watched, and what may be trained on."""
    training, found = demo.training, runs.list_runs(demo.runs)
    begun, state = training.begun()
    if begun and begun not in {run["name"] for run in found}:
        found.insert(0 if state == "training" else len(found), {"name": begun, "state": state})
    return {
        "runs": found, "folder": printable(demo.runs.name),
        "allowed": training.allowed, "sets": training.sets(), "minutes": requests.MAX_MINUTES,
        "photos": [MIN_PHOTOS, requests.MAX_PHOTOS],
    }  # fmt: skip


def watch_run(demo: Demo, value: Json, visitor: str) -> Json:
    """A run's curves and samples."""
    request = requests.read(requests.RunRequest, value)
    status = demo.training.status(request.name)
    if status["failed"]:
        raise UserError(f"the run has failed: {status['failed']}")
    if status["ours"] and request.name not in runs.runs_by_name(demo.runs):
        return {"starting": True, "version": "", "ours": True}
    return {**runs.describe_run(demo.runs, request.name, request.seen), "ours": status["ours"]}


def start_run(demo: Demo, value: Json, visitor: str) -> Json:
    """Begin a run, and return its name."""
    return {"name": demo.training.start(requests.read(requests.StartRequest, value))}


def stop_run(demo: Demo, value: Json, visitor: str) -> Json:
    """Have a run that was begun from the page save and end."""
    request = requests.read(requests.RunRequest, value)
    demo.training.stop(request.name)
    return {}


FUNCTIONS: dict[Callable[..., Any], dict[str, Any]] = {
    sample: IN_TURNS, picture: {"concurrency_limit": 2}, whiteboard: {"concurrency_limit": 2},
    curves: {"concurrency_limit": 2}, classify: {"concurrency_limit": 2},
    save_film: {"concurrency_limit": 1}, plane: IN_TURNS, list_runs: {"concurrency_limit": 2},
    watch_run: {"concurrency_limit": 2}, start_run: {"concurrency_limit": 1},
    stop_run: {"concurrency_limit": 1},
}  # fmt: skip


def build_page(store: ModelStore, training: RunLauncher) -> gr.Blocks:
    """Return the functions behind the page; `launch` in server.py serves them with it."""
    demo = Demo(store, training, Turns())
    with DemoBlocks(title="ddpm", analytics_enabled=False, delete_cache=CACHE) as blocks:
        for fn, options in FUNCTIONS.items():
            gr.api(
                as_endpoint(fn, demo), api_name=fn.__name__, api_description=fn.__doc__, **options
            )
    return blocks


def as_endpoint(fn: Callable[..., Any], demo: Demo) -> Callable[..., Any]:
    """Return a function of the page as gradio calls it, its UserErrors as messages."""

    def message(error: UserError) -> gr.Error:
        return gr.Error(str(error), title="That did not work", print_exception=False)

    @wraps(fn)
    def returning(value: Json, request: gr.Request) -> Json:
        try:
            return fn(demo, value, address_of(request.request))
        except UserError as error:
            raise message(error) from None

    @wraps(fn)
    def yielding(value: Json, request: gr.Request) -> Iterator[Json]:
        try:
            yield from fn(demo, value, address_of(request.request))
        except UserError as error:
            raise message(error) from None

    chosen: Any = yielding if inspect.isgeneratorfunction(fn) else returning
    del chosen.__wrapped__  # its arguments are the value and the request, which gradio looks for
    chosen.__annotations__ = {"value": Json, "request": gr.Request, "return": Json}
    return chosen


class DemoBlocks(gr.Blocks):
    """Functions whose failures are one line in the log and a sentence in the page."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*args, **kwargs)
        except Exception as error:  # whatever an odd request holds
            if isinstance(error, gr.Error) and not error.print_exception:
                raise  # a sentence of ours
            logger.warning("a request failed: %s", plain(repr(error), 300))
            sentence = "This request could not be understood: load the page anew"
            raise gr.Error(sentence, print_exception=False) from None


def described(store: ModelStore) -> list[Json]:
    """Return what the page must know of the networks that are still there. Raise UserError where
    none is."""
    models = []
    for name in store.names:
        with suppress(UserError):
            models.append(store.describe(name))
    return models or [store.describe(store.names[0])]


def page_html(store: ModelStore, training: RunLauncher) -> str:
    """Return the page, with what its scripts must know of the server."""
    boot = {
        "models": described(store),
        "functions": {fn.__name__: i for i, fn in enumerate(FUNCTIONS)},
        "equations": [equation.as_dict() for equation in equations.EQUATIONS],
        "limits": {
            "bytes": MAX_BYTES, "examples": NUM_EXAMPLES, "frames": requests.MAX_FRAMES,
        },
        "training": training.allowed,
    }  # fmt: skip
    text = json.dumps(boot, ensure_ascii=False).replace("<", "\\u003c")
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    return html.replace("{{boot}}", text)
