"""Parts that the tabs share: the choice of a class and of an image, a stage for the images that
are generated, and errors as messages in the page."""

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..utils.errors import UserError, plain
from . import uploads
from .models import NUM_EXAMPLES, ModelStore
from .queue import NETWORK, SLOTS
from .stream import ALL_CLASSES, NO_CLASS
from .turns import Turns

STATIC = Path(__file__).parent / "static"
WAITING = '<div class="waiting">Press the button, and images come out of static here.</div>'

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# The images of so many visitors are under way at once; the others see their place in the queue.
IN_TURNS: dict[str, Any] = {"concurrency_limit": SLOTS, "concurrency_id": NETWORK}

logger = logging.getLogger(__name__)


@dataclass
class Page:
    """What the builders of all tabs are given."""

    blocks: gr.Blocks
    tabs: gr.Tabs
    model: gr.Dropdown
    store: ModelStore
    runs: Path
    class_dropdowns: list[tuple[gr.Dropdown, str]] = field(default_factory=list)
    turns: Turns = field(default_factory=Turns)

    @property
    def first(self) -> Checkpoint:
        """The model that is selected when the page opens."""
        return self.store[self.store.names[0]]

    def class_dropdown(self, default: str = ALL_CLASSES) -> gr.Dropdown:
        """Return a choice of class, which is made anew when the visitor selects a model."""
        dropdown = gr.Dropdown(**class_choices(self.first, default), label="Class")
        self.class_dropdowns.append((dropdown, default))
        return dropdown

    def connect_class_dropdowns(self) -> None:
        """Update every choice of class with the model: call it once, after all tabs are built."""

        def choices(name: str) -> list[gr.Dropdown]:
            checkpoint = self.store[name]
            return [
                gr.Dropdown(**class_choices(checkpoint, default))
                for _, default in self.class_dropdowns
            ]

        dropdowns = [dropdown for dropdown, _ in self.class_dropdowns]
        self.model.change(show_errors(choices), self.model, dropdowns, **QUIET)


def class_choices(checkpoint: Checkpoint, default: str) -> dict[str, Any]:
    """Return the classes that a network can be asked for, and `default` where it is one of them."""
    if not checkpoint.conditional:
        return {"choices": [ALL_CLASSES], "value": ALL_CLASSES}
    return {"choices": [ALL_CLASSES, NO_CLASS, *checkpoint.data.classes], "value": default}


def seed_number(value: int = 0, label: str = "Seed") -> gr.Number:
    return gr.Number(value, precision=0, minimum=0, label=label)


def script(name: str) -> str:
    """Return a file of static/ for `js_on_load`."""
    return (STATIC / name).read_text(encoding="utf-8")


def show_errors(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, or generator function, with its UserErrors shown as messages."""

    def message(error: UserError) -> gr.Error:
        return gr.Error(str(error), title="That did not work", print_exception=False)

    @wraps(fn)
    def returning(*args: Any) -> Any:
        try:
            return fn(*args)
        except UserError as error:
            raise message(error) from None

    @wraps(fn)
    def yielding(*args: Any) -> Iterator[Any]:
        try:
            yield from fn(*args)
        except UserError as error:
            raise message(error) from None

    return yielding if inspect.isgeneratorfunction(fn) else returning


class DemoBlocks(gr.Blocks):
    """A page whose failures are one line in the log and a sentence in the page."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*args, **kwargs)
        except Exception as error:  # whatever an odd request holds
            if isinstance(error, gr.Error) and not error.print_exception:
                raise  # a sentence of ours
            logger.warning("a request failed: %s", plain(repr(error), 300))
            sentence = "This request could not be understood: load the page anew"
            raise gr.Error(sentence, print_exception=False) from None


# ---- a stage for images ----------------------------------------------------------------------


class Stage(NamedTuple):
    """Where images are shown while they are sampled, and the buttons that start and stop that."""

    start: gr.Button
    stop: gr.Button
    output: gr.HTML

    def connect(
        self, fn: Callable[..., Iterator[Any]], inputs: list[Any], *outputs: gr.Number
    ) -> None:
        """Run `fn` when the visitor presses the button. It yields HTML, or with more `outputs` a
        tuple of HTML and theirs."""
        event = self.start.click(
            show_errors(fn), inputs, [self.output, *outputs], show_progress_on=self.output,
            api_visibility="private", **IN_TURNS,
        )  # fmt: skip
        self.stop.click(None, cancels=event, api_visibility="private")


def buttons(text: str, name: str = "") -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=f"go{name}")
        stop = gr.Button("Stop", variant="stop", elem_id=f"stop{name}")
    return start, stop


def stage_html(name: str = "") -> gr.HTML:
    return gr.HTML(WAITING, js_on_load=script("player.js"), elem_id=f"stage{name}", label="Images")


def stage(text: str, name: str) -> Stage:
    """Return a stage below its buttons; `text` is on the one that starts."""
    return Stage(*buttons(text, f"-{name}"), stage_html(f"-{name}"))


# ---- the choice of an image ------------------------------------------------------------------


class ImagePicker:
    """The choice of an image: an example by its number, or a file of the visitor's."""

    def __init__(self, page: Page):
        self.page = page
        self.uploaded = gr.State(None)
        with gr.Row():
            self.number = gr.Number(
                0, precision=0, minimum=0, maximum=NUM_EXAMPLES - 1, label="Image number"
            )
            self.upload = gr.HTML(
                uploads.upload_html("or an image of yours"), js_on_load=script("upload.js")
            )
            self.note = gr.Markdown()
        self.inputs = [page.model, self.number, self.uploaded]

    def image(self, name: str, number: float, uploaded: Tensor | None) -> Tensor:
        """Return the visitor's image where model `name` can take it, else the example."""
        own = self.fitting(name, uploaded)
        return self.page.store.example(name, int(number or 0)) if own is None else own

    def fitting(self, name: str, uploaded: Tensor | None) -> Tensor | None:
        """Return the visitor's image where model `name` can take it."""
        shape = self.page.store[name].data.shape
        return uploaded if uploaded is not None and uploaded.shape == shape else None

    def on_change(self, fn: Callable[..., Any], inputs: list[Any], outputs: Any) -> None:
        """Call `fn` when the page opens and whenever another image, or model, is chosen."""
        page, chosen = self.page, [self.uploaded, self.note]

        def read(name: str, event: gr.EventData) -> tuple[Tensor, str]:
            sent = event_data(event)
            file, data = str(sent.get("name", "the file"))[:80], str(sent.get("data", ""))
            checkpoint = page.store[name]
            return uploads.read_upload(file, data, checkpoint.data, checkpoint.config.background)

        def keep(name: str, uploaded: Tensor | None) -> tuple[Any, Any]:
            fits = uploaded is None or self.fitting(name, uploaded) is not None
            return (gr.skip(), gr.skip()) if fits else (None, "")

        update: tuple[Any, ...] = (show_errors(fn), inputs, outputs)
        self.upload.upload(show_errors(read), page.model, chosen, **QUIET).then(*update, **QUIET)
        self.number.input(lambda: (None, ""), None, chosen, **QUIET).then(*update, **QUIET)
        page.model.change(
            show_errors(keep), [page.model, self.uploaded], chosen, **QUIET
        ).success(*update, **QUIET)  # fmt: skip
        page.blocks.load(*update, **QUIET)


def event_data(event: gr.EventData) -> dict[str, Any]:
    """Return what a script in static/ sent with its event."""
    return event._data if isinstance(event._data, dict) else {}
