"""A model card: what a network is, learned, and scored, for whoever finds it on the hub."""

from collections.abc import Sequence
from dataclasses import dataclass

import tomli_w

from ..checkpoint.checkpoint import Checkpoint
from ..config import to_dict
from ..utils.errors import UserError, counted, printable, printable_lines
from .report import Report

MAX_CLASSES = 100  # that a card lists
UNSTATED = "not stated: ask before you use it for more than a look"
OF_KNOWN_DATA = {"celeba": "CelebA's own terms: research that is not commercial"}


@dataclass(frozen=True)
class Licences:
    """`weights` is one of the hub's names, such as mit or cc-by-nc-4.0; `data` says in words what
    the images may be used for. Empty: it is not stated."""

    weights: str = ""
    data: str = ""


def check_reports(checkpoint: Checkpoint, reports: Sequence[Report]) -> None:
    """Raise UserError for a score that is not of these weights."""
    ours = checkpoint.weights_hash()
    for report in reports:
        if (theirs := report.protocol.sampling.get("network")) != ours:
            raise UserError(
                f"this score is not of these weights, {ours}, but of {theirs or 'images'}: make it "
                f"by ddpm evaluate of this network"
            )


def card(
    checkpoint: Checkpoint, name: str, reports: Sequence[Report], licences: Licences, trust: bool
) -> str:
    """Return the README.md of a repository, with the table that the hub reads at its top. `trust`
    says whether the folder has code of its own for diffusers."""
    c, data = checkpoint, checkpoint.data
    millions = c.parameters / 1e6
    source = code(data.source)
    classes = f" of {counted(len(data.classes), 'class', 'classes')}" if data.classes else ""
    shape = f"{data.channels} x {data.height} x {data.width}"
    licence = licences.data or OF_KNOWN_DATA.get(data.source, UNSTATED)
    asked = f" --label {code_word(data.classes[0])}" if data.classes else ""
    sections = [
        f"# {name.split('/')[-1]}",
        f"A denoising diffusion network of {millions:.1f} M parameters that makes images{classes}, "
        f"{shape}, trained on {source} with ddpm-from-scratch.",
        "![Samples, as they came: seed 0](samples.png)",
        "## Use",
        fenced(
            f"pip install ddpm-from-scratch\nhf download {name} model.safetensors --local-dir .\n"
            f"ddpm generate model.safetensors --n 64{asked} --out samples.png", "sh",
        ),
        fenced(
            f"from diffusers import DiffusionPipeline\n\npipeline = "
            f"DiffusionPipeline.from_pretrained({name!r}{', trust_remote_code=True' * trust})\n"
            f"pipeline(batch_size=4).images[0].save('image.png')", "python",
        ),
        "The second runs the code in this repository, `pipeline.py` and `unet/`." if trust else "",
        "`model.safetensors` carries a weaker network too, which guides it (autoguidance). The "
        "samples above are guided so; the second makes images without it."
        if c.guide and c.config.sample.guidance != 1 else "",
        "## Data",
        f"{counted(data.count, 'image')} of {source}{classes}; {code(data.preprocessing)}. "
        f"Fingerprint: {code(data.fingerprint or 'unknown')}.",
        list_of(data.classes),
        "## Training",
        f"{counted(c.step, 'step')}, {counted(c.images_seen, 'image')}. The weights are "
        + ("an average over training (EMA)." if c.weights == "ema" else "as they were given.")
        + f" Their hash is `{c.weights_hash()}`. All settings, those of the sampler too:",
        fenced(tomli_w.dumps(to_dict(c.config)).strip(), "toml"),
        "## Scores",
        *(fenced(printable_lines(str(report))) for report in reports),
        "A score is to be compared with others of the same protocol alone; its floor is the "
        "distance of real images." if reports else "None were measured.",
        "## Licence",
        f"Weights: {licences.weights or UNSTATED}.\n\nData: {printable(licence)}.",
    ]  # fmt: skip
    return f"---\n{metadata(c, name, reports, licences)}\n---\n\n" + (
        "\n\n".join(section for section in sections if section) + "\n"
    )


def metadata(
    checkpoint: Checkpoint, name: str, reports: Sequence[Report], licences: Licences
) -> str:
    """Return what the hub reads of a card, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    source = checkpoint.data.source
    on_hub = source.startswith("hf:")
    source = source.split(":")[1] if on_hub else source  # hf:OWNER/NAME:CONFIG
    fid = "fid", "frechet-distance"  # of Inception's features; of others
    results = [
        EvalResult(
            task_type="unconditional-image-generation", dataset_type=source, dataset_name=source,
            metric_type=fid[not r.protocol.features.startswith("inception ")],
            metric_name=f"Fréchet distance, {r.protocol.features}, {r.protocol.n} samples",
            metric_value=round(r.distance, 4),
        )
        for r in reports
    ]  # fmt: skip
    about = ModelCardData(
        license=licences.weights or "unknown", library_name="diffusers",
        datasets=[source] if on_hub else None,
        tags=["ddpm-from-scratch", "diffusion"], pipeline_tag="unconditional-image-generation",
        model_name=name, eval_results=results or None,
    )  # fmt: skip
    return about.to_yaml().strip()


def list_of(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - MAX_CLASSES:,} more" if len(classes) > MAX_CLASSES else ""
    return ", ".join(map(code, classes[:MAX_CLASSES])) + more


def code(text: str) -> str:
    """Return a text of someone's as Markdown that shows it and no more."""
    return f"`{printable(text).replace('`', chr(39))}`"


def code_word(text: str) -> str:
    return "'" + printable(text).replace("'", "'\\''").replace("```", "") + "'"


def fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.replace('```', '')}\n```"
