"""Compare settings: train every variant for some minutes, or vary how one network samples.

    python scripts/sweep.py mnist --train base train.lr=1e-3,6e-3 "train.batch=16 unet.blocks=1"
    python scripts/sweep.py runs/colour --sample "guidance=1,1.5,2 eta=0,0.5" --features cifar-net
    python scripts/sweep.py cifar10 --sample "steps=5,10,20 sampler=ddim,dpm++" \\
        --ruler "python colour.py cifar10 {samples}"

A variant is a text of settings, NAME=VALUE; values with commas between them are all tried, in every
combination; `base` changes nothing. With --train the first word is a preset, and each variant of it
is trained; without, it is a checkpoint. Every network then makes images by every variant of
--sample, and these are scored by `ddpm.evaluate` and, where one is given, by a ruler: a program
that prints NAME=NUMBER. A row of scores.jsonl that exists already is not made again, and a run that
was stopped goes on; the table is of all rows. Commands that run side by side, one for each variant
and with OMP_NUM_THREADS=1, may share a folder: the same with all variants then prints the table.
"""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from ddpm import (
    Checkpoint,
    Reference,
    UserError,
    evaluate,
    generate,
    load,
    load_reference,
    preset,
    train,
)
from ddpm.checkpoint.run_dir import inspect_run
from ddpm.config import Config, to_dict, validated
from ddpm.evaluation.sampling import labels_as_in
from ddpm.generation.generate import guide_of, network_evaluations
from ddpm.utils.device import best_device

BASE = "base"


@dataclass(frozen=True)
class Options:
    what: tyro.conf.Positional[str]
    """With --train a preset; else a run, a .safetensors file, or the name of bundled weights."""
    train: tuple[str, ...] = ()
    """Variants of the preset, such as unet.channels=32,48."""
    sample: tuple[str, ...] = (BASE,)
    """Variants of sampling, such as "steps=10,20 guidance=0"; guide=WEIGHTS for autoguidance."""
    minutes: float = 2.0
    """Training time of each variant."""
    data: str | None = None
    """Images to train on and to be scored against, if not the preset's or the checkpoint's."""
    root: str = "data"
    """Where the named sets lie."""
    features: str | None = None
    """As in `ddpm evaluate`."""
    ruler: str | None = None
    """Another program to score with, its {samples} replaced by an .npz."""
    out: Path = Path("sweep")
    """Folder of the runs and of scores.jsonl."""
    n: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 2000
    """Images in a score."""
    seed: int = 0
    device: str | None = None


def variants(texts: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of every variant and the settings that it changes."""
    for text in texts:
        words = [] if text == BASE else shlex.split(text)
        if not all("=" in word for word in words):
            raise UserError(f"{text!r} is not a variant: write NAME=VALUE, with spaces between")
        names, values = (
            zip(*(word.split("=", 1) for word in words), strict=True) if words else ((), ())
        )
        for chosen in product(*map(parsed, values)):
            changes = dict(zip(names, chosen, strict=True))
            yield " ".join(f"{k}={v}".replace(" ", "") for k, v in changes.items()) or BASE, changes


def parsed(text: str) -> list[Any]:
    """Return the values between the commas: numbers, true, false and [lists] as TOML has them, and
    all else as text."""
    try:
        return tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return text.split(",")


def changed(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the nested table with the changes, whose names have dots."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        table = table | {first: changed(table.get(first, {}), {rest: value}) if rest else value}
    return table


def real_images(options: Options) -> Reference:
    """Return what is compared with, read before hours of training go by."""
    config = preset(options.what) if options.train else load(options.what).config
    return load_reference(
        options.data or config.data, root=options.root, size=config.size,
        features=options.features, device=options.device or best_device(),
    )  # fmt: skip


def networks(options: Options) -> Iterator[tuple[str, Checkpoint]]:
    """Yield the name of each network and the network, trained where it has yet to be."""
    if not options.train:
        yield BASE, load(options.what)
    for name, changes in variants(options.train):
        config = preset(options.what)
        config = replace(
            config, data=options.data or config.data, root=options.root, seed=options.seed,
            minutes=options.minutes, steps=None, images=None,
        )  # fmt: skip
        config = validated(Config, changed(to_dict(config), changes), name)
        words = f"{options.what} {name} {options.minutes:g} {options.seed}"
        out = options.out / re.sub(r"[^\w.=]+", "-", words).strip("-")
        if not train(config, out, device=options.device, resume=inspect_run(out).is_run).finished:
            raise KeyboardInterrupt
        yield name, load(out)


def score(
    checkpoint: Checkpoint, changes: dict[str, Any], real: Reference, options: Options, folder: Path
) -> dict[str, Any]:
    """Return what the images are worth that the checkpoint makes with these settings."""
    changes, guide = {k: v for k, v in changes.items() if k != "guide"}, changes.get("guide")
    sample = checkpoint.config.sample
    settings = validated(type(sample), asdict(sample) | changes)
    guide = guide_of(checkpoint, settings, guide)
    samples = generate(
        checkpoint, options.n, seed=options.seed, settings=settings, guide=guide,
        labels=labels_as_in(real.training, checkpoint.data.classes, options.n),
        device=options.device,
    )  # fmt: skip
    report = evaluate(samples, data=real, device=options.device)
    row: dict[str, Any] = {
        "evaluations": network_evaluations(
            settings, checkpoint.diffusion, checkpoint.conditional, guide=guide is not None
        ),
        "distance": report.distance, "floor": report.floor, "class_accuracy": report.class_accuracy,
    }  # fmt: skip
    if options.ruler:
        samples.save(folder / "samples.npz")
        row["ruler"] = measured(options.ruler, folder / "samples.npz")
    return row


def measured(ruler: str, samples: Path) -> dict[str, float]:
    """Return every NAME=NUMBER that the program prints."""
    words = [word.replace("{samples}", str(samples)) for word in shlex.split(ruler)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    found = re.findall(r"(\w+)=([-+.\de]+)", done.stdout)
    if done.returncode or not found:
        raise UserError(f"{ruler!r} ended with {done.returncode} and printed no NAME=NUMBER")
    return {name: float(number) for name, number in found}


def main(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "scores.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    shared = {
        "what": options.what, "data": options.data, "features": options.features, "n": options.n,
        "seed": options.seed, "ruler_command": options.ruler,
        "minutes": options.minutes if options.train else None,
        "version": 2,  # of how a row is made
    }  # fmt: skip
    real = real_images(options)
    with TemporaryDirectory() as folder:
        for name, checkpoint in networks(options):
            for how, changes in variants(options.sample):
                key = {**shared, "network": name, "sampling": how}
                if any(key.items() <= row.items() for row in rows):
                    continue
                parameters = sum(p.numel() for p in checkpoint.net.parameters())
                about = {"parameters": parameters, "images": checkpoint.images_seen}
                found = score(checkpoint, changes, real, options, Path(folder))
                rows.append({**key, **about, **found})
                with file.open("a") as lines:
                    lines.write(json.dumps(rows[-1]) + "\n")
    print(table([row for row in rows if shared.items() <= row.items()]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown; distances are in floors, those of as many real images."""
    rulers = list(dict.fromkeys(name for row in rows for name in row.get("ruler", {})))
    head = ["network", "sampling", "parameters", "images", "evaluations", "distance / floor",
            "class accuracy", *rulers]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in rows:
        asked = "" if row["class_accuracy"] is None else f"{row['class_accuracy']:.1%}"
        lines.append([
            row["network"], row["sampling"], f"{row['parameters'] / 1e6:.2f} M",
            f"{row['images']:,}", f"{row['evaluations']}",
            f"{row['distance'] / row['floor']:.2f}", asked,
            *(f"{row.get('ruler', {}).get(name, float('nan')):g}" for name in rulers),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
