"""The page: four tabs over one choice of model."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..generation.generate import Edit
from ..utils.errors import UserError
from . import equations, uploads
from .html import SCRUB
from .models import EXAMPLES, ModelStore
from .runs import look as run_view
from .runs import runs as runs_in
from .runs import stamp
from .stream import ALL, MAX_IMAGES, MAX_STEPS, NONE, make, seed_of, settings_of

WAITING = '<div class="waiting">Press the button, and images come out of static here.</div>'
# One walk at a time has the processor; who waits is told the place in the queue.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network"}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def page(store: ModelStore, runs: Path) -> gr.Blocks:
    """The whole page; `launch` it with the style of `serve`."""
    with gr.Blocks(title="ddpm", analytics_enabled=False, delete_cache=(600, 600)) as blocks:
        gr.Markdown("# ddpm: images out of static")
        model = gr.Dropdown(store.names, value=store.names[0], label="Model")
        with gr.Tab("Generate") as generating:
            label = generate_tab(store, model)
        with gr.Tab("Whiteboard") as writing:
            whiteboard_tab(blocks, store, model)
        with gr.Tab("Between and within") as editing:
            labels = editing_tab(blocks, store, model)
        with gr.Tab("Training") as watching:
            clock = training_tab(watching, runs)
        watching.select(lambda: gr.Timer(active=True), None, clock, **QUIET)
        for tab in (generating, writing, editing):
            tab.select(lambda: gr.Timer(active=False), None, clock, **QUIET)

        def choices(name: str) -> list[gr.Dropdown]:
            return [classes(store[name]), *(classes(store[name], True) for _ in labels)]

        model.change(said(choices), model, [label, *labels], **QUIET)
    return blocks


def said(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or generator function, its UserError shown in the page as a sentence."""

    def shown(error: UserError) -> gr.Error:
        return gr.Error(str(error), title="That did not work", print_exception=False)

    @wraps(fn)
    def returning(*args: Any) -> Any:
        try:
            return fn(*args)
        except UserError as error:
            raise shown(error) from None

    @wraps(fn)
    def yielding(*args: Any) -> Iterator[Any]:
        try:
            yield from fn(*args)
        except UserError as error:
            raise shown(error) from None

    return yielding if inspect.isgeneratorfunction(fn) else returning


def classes(checkpoint: Checkpoint, none_first: bool = False) -> gr.Dropdown:
    """The choice of class that a network allows."""
    choices = [ALL, NONE, *checkpoint.data.classes] if checkpoint.conditional else [ALL]
    return gr.Dropdown(choices, value=choices[none_first and len(choices) > 1], label="Class")


# ---- generate --------------------------------------------------------------------------------


def generate_tab(store: ModelStore, model: gr.Dropdown) -> gr.Dropdown:
    first = store[store.names[0]]
    chosen = first.config.sample
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            label = classes(first)
            n = gr.Slider(1, MAX_IMAGES, 16, step=1, label="Images")
            steps = gr.Slider(1, MAX_STEPS, chosen.steps, step=1, label="Steps")
            with gr.Row():
                go = gr.Button("Generate", variant="primary", elem_id="go")
                stop = gr.Button("Stop", variant="stop", elem_id="stop")
            with gr.Accordion("Sampler, guidance and seed", open=False):
                sampler = gr.Dropdown(
                    ["ddim", "ddpm", "dpm++"], value=chosen.sampler, label="Sampler"
                )
                eta = gr.Slider(0, 1, chosen.eta, step=0.05, label="η: noise that ddim adds")
                guidance = gr.Slider(
                    0,
                    6,
                    chosen.guidance,
                    step=0.1,
                    label="Guidance: how much to insist on the class",
                )
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                fresh = gr.Checkbox(True, label="A fresh seed each time")
        with gr.Column(scale=2, min_width=300):
            stage = gr.HTML(WAITING, js_on_load=SCRUB, elem_id="stage", label="Images")

    def run(
        name: str, label: str, n: float, steps: float, sampler: str, eta: float,
        guidance: float, seed: float, fresh: bool,
    ) -> Iterator[Any]:  # fmt: skip
        checkpoint, drawn = store[name], seed_of(seed, fresh)
        settings = settings_of(checkpoint, sampler, steps, eta, guidance, label)
        for i, html in enumerate(make(checkpoint, settings, int(n), drawn, label)):
            yield html, gr.skip() if i else drawn

    event = go.click(
        said(run), [model, label, n, steps, sampler, eta, guidance, seed, fresh],
        [stage, seed], show_progress_on=stage, api_visibility="private", **ONE_AT_A_TIME,
    )  # fmt: skip
    stop.click(None, cancels=event, api_visibility="private")

    def defaults(name: str) -> tuple[Any, ...]:
        s = store[name].config.sample
        return s.steps, s.sampler, s.eta, s.guidance

    model.change(said(defaults), model, [steps, sampler, eta, guidance], **QUIET)
    return label


# ---- whiteboard ------------------------------------------------------------------------------


def fits(image: Tensor, checkpoint: Checkpoint) -> bool:
    data = checkpoint.data
    return tuple(image.shape) == (data.channels, data.height, data.width)


def own_or_example(store: ModelStore, name: str, which: float, own: Tensor | None) -> Tensor:
    """The visitor's image where the network can take it, else the one of that number."""
    if own is not None and fits(own, store[name]):
        return own
    return store.example(name, int(which or 0))


def kept(own: Tensor | None, checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The visitor's image and the note on it when the model changes: gone if it does not fit."""
    return (gr.skip(), gr.skip()) if own is not None and fits(own, checkpoint) else (None, "")


def whiteboard_tab(blocks: gr.Blocks, store: ModelStore, model: gr.Dropdown) -> None:
    T = store[store.names[0]].diffusion.T
    own = gr.State(None)
    with gr.Row():
        which = gr.Number(0, precision=0, minimum=0, maximum=EXAMPLES - 1, label="Image number")
        upload = gr.HTML(uploads.upload_html("or an image of yours"), js_on_load=uploads.UPLOAD)
        note = gr.Markdown(elem_classes="note")
    t = gr.Slider(1, T, T // 4, step=1, label="t: how far towards static", elem_id="t")
    board = gr.HTML(elem_id="board")

    def draw(name: str, which: float, own: Tensor | None, t: float) -> str:
        mine = own is not None and fits(own, store[name])
        image, made = own_or_example(store, name, which, own), not (mine or store.real(name))
        return equations.board(store[name], image, int(t), made=made)

    def changed(name: str, own: Tensor | None, t: float) -> tuple[Any, ...]:
        checkpoint = store[name]
        T = checkpoint.diffusion.T
        return *kept(own, checkpoint), gr.Slider(maximum=T, value=min(t, T))

    inputs = [model, which, own, t]
    live: dict[str, Any] = {**QUIET, "trigger_mode": "always_last", "concurrency_limit": 2}
    # Of a number that was emptied, to type another, there is nothing yet.
    t.input(said(draw), inputs, board, js="(...all) => [...all.slice(0, 3), all[3] ?? 1]", **live)
    taken(upload, store, model, own, note).then(said(draw), inputs, board, **QUIET)
    which.input(lambda: (None, ""), None, [own, note], **QUIET).then(
        said(draw), inputs, board, **QUIET
    )
    model.change(said(changed), [model, own, t], [own, note, t], **QUIET).success(
        said(draw), inputs, board, **QUIET
    )
    blocks.load(said(draw), inputs, board, **QUIET)
    for equation in equations.EQUATIONS:
        gr.Markdown(f"### {equation.title}\n\n$$ {equation.tex} $$")
        with gr.Accordion(f"The lines that compute it: {equation.code.__qualname__}", open=False):
            gr.Code(equations.source(equation), language="python", interactive=False)


def taken(
    upload: gr.HTML, store: ModelStore, model: gr.Dropdown, own: gr.State, note: gr.Markdown
) -> Any:
    """What happens when a visitor chooses a file."""

    def take(name: str, event: gr.EventData) -> tuple[Tensor, str]:
        sent = event._data if isinstance(event._data, dict) else {}
        file, data = str(sent.get("name", "the file"))[:80], str(sent.get("data", ""))
        return uploads.read_upload(file, data, store[name].data)

    return upload.upload(said(take), model, [own, note], **QUIET)


# ---- between and within ----------------------------------------------------------------------


def editing_tab(blocks: gr.Blocks, store: ModelStore, model: gr.Dropdown) -> list[gr.Dropdown]:
    first = store[store.names[0]]
    own, mask = gr.State(None), gr.State(None)
    found = []

    def stage_and_buttons(text: str, name: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
        with gr.Row():
            go = gr.Button(text, variant="primary", elem_id=f"go-{name}")
            stop = gr.Button("Stop", variant="stop")
        return go, stop, gr.HTML(WAITING, js_on_load=SCRUB, elem_id=f"stage-{name}")

    def run(name: str, label: str, n: float, seed: float, edit: Edit) -> Iterator[str]:
        checkpoint = store[name]
        s = checkpoint.config.sample
        settings = settings_of(checkpoint, s.sampler, s.steps, s.eta, s.guidance, label)
        yield from make(checkpoint, settings, int(n), seed_of(seed, False), label, edit)

    def wire(go: gr.Button, stop: gr.Button, stage: gr.HTML, fn: Any, inputs: list[Any]) -> None:
        event = go.click(said(fn), inputs, stage, api_visibility="private", **ONE_AT_A_TIME)
        stop.click(None, cancels=event, api_visibility="private")

    with gr.Tab("From one seed to another"):
        gr.Markdown("Images along the great circles between the noise of two seeds.")
        with gr.Row():
            a = gr.Number(1, precision=0, minimum=0, label="From seed")
            b = gr.Number(2, precision=0, minimum=0, label="to seed")
            n = gr.Slider(3, 16, 8, step=1, label="Images")
            label = classes(first, none_first=True)
        found.append(label)
        parts = stage_and_buttons("Walk", "between")

        def between(name: str, label: str, n: float, a: float, b: float) -> Iterator[str]:
            yield from run(name, label, n, a, Edit(towards=seed_of(b, False)))

        wire(*parts, between, [model, label, n, a, b])

    gr.Markdown("### An image to begin with")
    with gr.Row():
        which = gr.Number(0, precision=0, minimum=0, maximum=EXAMPLES - 1, label="Image number")
        upload = gr.HTML(uploads.upload_html("or an image of yours"), js_on_load=uploads.UPLOAD)
        note = gr.Markdown()
    with gr.Tab("Paint anew"):
        gr.Markdown("Paint over what is to be made anew; the rest stays as it is.")
        canvas = gr.HTML(js_on_load=uploads.PAINT, elem_id="canvas")
        with gr.Row():
            rounds = gr.Slider(1, 20, 5, step=1, label="Rounds a step: more fits better")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            label = classes(first, none_first=True)
        found.append(label)
        parts = stage_and_buttons("Paint", "paint")

        def paint(
            name: str, label: str, seed: float, which: float, own: Any, mask: Any, rounds: float
        ) -> Iterator[str]:
            if mask is None or not mask.any():
                raise UserError("Nothing is painted over yet: draw on the image first")
            image = own_or_example(store, name, which, own)
            if mask.shape != image.shape[1:]:
                raise UserError("The mask is of another model's size: draw it again")
            yield from run(name, label, 8, seed, Edit(image=image, mask=mask, rounds=int(rounds)))

        wire(*parts, paint, [model, label, seed, which, own, mask, rounds])
    with gr.Tab("Variations"):
        gr.Markdown("The image goes part of the way to static, and comes back as another.")
        with gr.Row():
            change = gr.Slider(0.05, 1, 0.6, step=0.05, label="How far")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            label = classes(first, none_first=True)
        found.append(label)
        parts = stage_and_buttons("Vary", "vary")

        def vary(
            name: str, label: str, seed: float, which: float, own: Any, change: float
        ) -> Iterator[str]:
            image = own_or_example(store, name, which, own)
            yield from run(name, label, 16, seed, Edit(image=image, change=float(change)))

        wire(*parts, vary, [model, label, seed, which, own, change])

    def shown(name: str, which: float, own: Any) -> tuple[str, None]:
        return uploads.canvas_html(own_or_example(store, name, which, own)), None

    def changed(name: str, own: Tensor | None) -> tuple[Any, Any]:
        return kept(own, store[name])

    def painted(name: str, event: gr.EventData) -> Tensor:
        sent = event._data if isinstance(event._data, dict) else {}
        return uploads.read_mask(str(sent.get("mask", "")), store[name].data)

    canvas.input(said(painted), model, mask, **QUIET)
    inputs, outputs = [model, which, own], [canvas, mask]
    taken(upload, store, model, own, note).then(said(shown), inputs, outputs, **QUIET)
    which.input(lambda: (None, ""), None, [own, note], **QUIET).then(
        said(shown), inputs, outputs, **QUIET
    )
    model.change(said(changed), [model, own], [own, note], **QUIET).success(
        said(shown), inputs, outputs, **QUIET
    )
    blocks.load(said(shown), inputs, outputs, **QUIET)
    return found


# ---- training --------------------------------------------------------------------------------


def training_tab(tab: gr.Tab, runs: Path) -> gr.Timer:
    """Returns the clock at whose ticks the tab is drawn anew: to run while the tab is open."""
    names = list(runs_in(runs))
    run = gr.Dropdown(names, value=names[0] if names else None, label=f"Run in {runs.name}/")
    view, seen = gr.HTML(elem_id="training"), gr.State(None)
    clock = gr.Timer(5, active=False)

    def look(name: str | None, seen: Any) -> tuple[Any, ...]:
        found = runs_in(runs)
        name = name if name in found else next(iter(found), None)
        choice = (list(found), name)
        there = stamp(found[name]) if name else None
        if seen == (choice, there):  # nothing is sent again
            return gr.skip(), gr.skip(), gr.skip()
        same = seen is not None and seen[0] == choice
        box = gr.skip() if same else gr.Dropdown(choice[0], value=name)
        return box, run_view(runs, name), (choice, there)

    for event in (tab.select, clock.tick, run.input):
        event(look, [run, seen], [run, view, seen], **QUIET)
    return clock
