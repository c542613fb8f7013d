"""The page: one model, chosen at the top, and a tab for each thing to do with it.

To add a tab, write a function that builds it, and name it in TABS.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from ..core.sampling import SAMPLERS
from ..generation.generate import Edit
from ..utils.errors import UserError, printable
from . import equations, uploads
from .components import (
    QUIET,
    DemoBlocks,
    ImagePicker,
    Page,
    Stage,
    buttons,
    event_data,
    script,
    seed_number,
    show_errors,
    stage,
    stage_html,
)
from .models import ModelStore
from .queue import address_of
from .runs import run_html, run_version, runs_by_name
from .stream import (
    MAX_IMAGES,
    MAX_STEPS,
    NO_CLASS,
    choose_seed,
    sample_config,
    stream_images,
)

CACHE = (600, 600)  # seconds between looks for files that gradio has cached, and their age
TICK = 5  # seconds between looks at a run's folder


def build_page(store: ModelStore, runs: Path) -> gr.Blocks:
    """Return the page; `launch` in server.py serves it with its style."""
    with DemoBlocks(title="ddpm", analytics_enabled=False, delete_cache=CACHE) as blocks:
        gr.Markdown("# ddpm: images out of static")
        model = gr.Dropdown(store.names, value=store.names[0], label="Model")
        with gr.Tabs() as tabs:
            page = Page(blocks, tabs, model, store, runs)
            for title, build in TABS.items():
                with gr.Tab(title):
                    build(page)
        page.connect_class_dropdowns()
    return blocks


def generate_tab(page: Page) -> None:
    chosen = page.first.config.sample
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            label = page.class_dropdown()
            n = gr.Slider(1, MAX_IMAGES, 16, step=1, label="Images")
            steps = gr.Slider(1, MAX_STEPS, chosen.steps, step=1, label="Steps")
            start, stop = buttons("Generate")
            with gr.Accordion("Sampler, guidance and seed", open=False):
                sampler = gr.Dropdown(list(SAMPLERS), value=chosen.sampler, label="Sampler")
                eta = gr.Slider(0, 1, chosen.eta, step=0.05, label="η: noise that ddim adds")
                insist = "Guidance: how much to insist on the class"
                guidance = gr.Slider(0, 6, chosen.guidance, step=0.1, label=insist)
                seed = seed_number()
                fresh = gr.Checkbox(True, label="A fresh seed each time")
        with gr.Column(scale=2, min_width=300):
            output = stage_html()

    def generate(
        name: str, label: str, n: float, steps: float, sampler: str, eta: float,
        guidance: float, seed: float, fresh: bool, request: gr.Request,
    ) -> Iterator[Any]:  # fmt: skip
        checkpoint, drawn = page.store[name], choose_seed(seed, fresh)
        settings = sample_config(checkpoint, sampler, steps, eta, guidance, label)
        frames = stream_images(
            checkpoint, settings, int(n), drawn, label,
            turns=page.turns, visitor=address_of(request.request),
        )  # fmt: skip
        for i, html in enumerate(frames):
            yield html, gr.skip() if i else drawn

    inputs = [page.model, label, n, steps, sampler, eta, guidance, seed, fresh]
    Stage(start, stop, output).connect(generate, inputs, seed)

    def defaults(name: str) -> tuple[Any, ...]:
        s = page.store[name].config.sample
        return s.steps, s.sampler, s.eta, s.guidance

    outputs = [steps, sampler, eta, guidance]
    page.model.change(show_errors(defaults), page.model, outputs, **QUIET)


def whiteboard_tab(page: Page) -> None:
    T = page.first.diffusion.T
    picker = ImagePicker(page)
    t = gr.Slider(1, T, T // 4, step=1, label="t: how far towards static", elem_id="t")
    board = gr.HTML(elem_id="board")

    def draw(name: str, number: float, uploaded: Tensor | None, t: float) -> str:
        image = picker.image(name, number, uploaded)
        own = picker.fitting(name, uploaded) is not None
        real = own or page.store.has_real_examples(name)
        return equations.whiteboard(page.store[name], image, int(t), generated=not real)

    def draw_within_T(
        name: str, number: float, uploaded: Tensor | None, t: float | None
    ) -> tuple[str, gr.Slider]:
        T = page.store[name].diffusion.T
        t = min(t or 1, T)
        return draw(name, number, uploaded, t), gr.Slider(maximum=T, value=t)

    inputs = [*picker.inputs, t]
    picker.on_change(draw_within_T, inputs, [board, t])
    t.input(
        show_errors(draw), inputs, board, trigger_mode="always_last", concurrency_limit=2,
        # The number is null while it is emptied to type another.
        js="(...values) => [...values.slice(0, 3), values[3] ?? 1]", **QUIET,
    )  # fmt: skip
    for equation in equations.EQUATIONS:
        gr.Markdown(f"### {equation.title}\n\n$$ {equation.tex} $$")
        with gr.Accordion(f"The lines that compute it: {equation.code.__qualname__}", open=False):
            gr.Code(equations.source(equation), language="python", interactive=False)


def editing_tab(page: Page) -> None:
    with gr.Tab("From one seed to another"):
        interpolation_tab(page)
    gr.Markdown("### An image to begin with")
    picker = ImagePicker(page)
    with gr.Tab("Paint anew"):
        inpainting_tab(page, picker)
    with gr.Tab("Variations"):
        variations_tab(page, picker)


def edited_images(
    page: Page, request: gr.Request, name: str, label: str, n: float, seed: float, edit: Edit
) -> Iterator[str]:
    """Yield images with the settings that the network was trained to be sampled with."""
    checkpoint = page.store[name]
    s = checkpoint.config.sample
    settings = sample_config(checkpoint, s.sampler, s.steps, s.eta, s.guidance, label)
    yield from stream_images(
        checkpoint, settings, int(n), choose_seed(seed, False), label, edit,
        page.turns, address_of(request.request),
    )  # fmt: skip


def interpolation_tab(page: Page) -> None:
    gr.Markdown("Images along the great circles between the noise of two seeds.")
    with gr.Row():
        a, b = seed_number(1, "From seed"), seed_number(2, "to seed")
        n = gr.Slider(3, 16, 8, step=1, label="Images")
        label = page.class_dropdown(NO_CLASS)

    def interpolate(
        name: str, label: str, n: float, a: float, b: float, request: gr.Request
    ) -> Iterator[str]:
        edit = Edit(towards=choose_seed(b, False))
        yield from edited_images(page, request, name, label, n, a, edit)

    stage("Walk", "between").connect(interpolate, [page.model, label, n, a, b])


def inpainting_tab(page: Page, picker: ImagePicker) -> None:
    gr.Markdown("Paint over what is to be made anew; the rest stays as it is.")
    mask = gr.State(None)
    canvas = gr.HTML(js_on_load=script("paint.js"), elem_id="canvas")
    with gr.Row():
        rounds = gr.Slider(1, 20, 5, step=1, label="Rounds a step: more fits better")
        seed, label = seed_number(), page.class_dropdown(NO_CLASS)

    def inpaint(
        name: str, number: float, uploaded: Tensor | None, mask: Tensor | None, label: str,
        seed: float, rounds: float, request: gr.Request,
    ) -> Iterator[str]:  # fmt: skip
        if mask is None or not mask.any():
            raise UserError("Nothing is painted over yet: draw on the image first")
        image = picker.image(name, number, uploaded)
        if mask.shape != image.shape[1:]:
            raise UserError("The mask is of another model's size: draw it again")
        edit = Edit(image=image, mask=mask, rounds=int(rounds))
        yield from edited_images(page, request, name, label, 8, seed, edit)

    stage("Paint", "paint").connect(inpaint, [*picker.inputs, mask, label, seed, rounds])

    def show(name: str, number: float, uploaded: Tensor | None) -> tuple[str, None]:
        return uploads.canvas_html(picker.image(name, number, uploaded)), None

    def read(name: str, event: gr.EventData) -> Tensor:
        return uploads.read_mask(str(event_data(event).get("mask", "")), page.store[name].data)

    picker.on_change(show, picker.inputs, [canvas, mask])
    canvas.input(show_errors(read), page.model, mask, **QUIET)


def variations_tab(page: Page, picker: ImagePicker) -> None:
    gr.Markdown("The image goes part of the way to static, and comes back as another.")
    with gr.Row():
        change = gr.Slider(0.05, 1, 0.6, step=0.05, label="How far")
        seed, label = seed_number(), page.class_dropdown(NO_CLASS)

    def vary(
        name: str, number: float, uploaded: Tensor | None, label: str, seed: float, change: float,
        request: gr.Request,
    ) -> Iterator[str]:  # fmt: skip
        edit = Edit(image=picker.image(name, number, uploaded), change=float(change))
        yield from edited_images(page, request, name, label, 16, seed, edit)

    stage("Vary", "vary").connect(vary, [*picker.inputs, label, seed, change])


def training_tab(page: Page) -> None:
    runs = page.runs
    names = list(runs_by_name(runs))
    run = gr.Dropdown(
        names, value=names[0] if names else None, label=f"Run in {printable(runs.name)}/"
    )
    view, shown = gr.HTML(elem_id="training"), gr.State(None)
    clock = gr.Timer(TICK, active=False)

    def update(name: str | None, shown: Any) -> tuple[Any, ...]:
        """Return the dropdown, the view and their state; nothing where that is shown already."""
        found = runs_by_name(runs)
        name = name if name in found else next(iter(found), None)
        choice = (list(found), name)
        state = (choice, run_version(found[name]) if name else None)
        if shown == state:
            return gr.skip(), gr.skip(), gr.skip()
        same = shown is not None and shown[0] == choice
        dropdown = gr.skip() if same else gr.Dropdown(choice[0], value=name)
        return dropdown, run_html(runs, name), state

    def select(name: str | None, shown: Any, event: gr.SelectData) -> tuple[Any, ...]:
        """Let the clock tick while the tab is open."""
        if event.value == TRAINING:
            return gr.Timer(active=True), *update(name, shown)
        return gr.Timer(active=False), gr.skip(), gr.skip(), gr.skip()

    inputs, outputs = [run, shown], [run, view, shown]
    clock.tick(update, inputs, outputs, **QUIET)
    run.input(update, inputs, outputs, **QUIET)
    page.tabs.select(select, inputs, [clock, *outputs], **QUIET)


TRAINING = "Training"
TABS: dict[str, Callable[[Page], None]] = {
    "Generate": generate_tab,
    "Whiteboard": whiteboard_tab,
    "Between and within": editing_tab,
    TRAINING: training_tab,
}
