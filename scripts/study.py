"""Which settings give the best images for the time: train each for so many minutes, then score it.

    python scripts/study.py mnist --root data --out studies/mnist --minutes 2 [--only NAME ...]
    python scripts/study.py cifar10-cpu --root data --features cifar-net --out studies/cifar10

Every variant begins as the preset and changes what VARIANTS says. Scored with 2,000 samples with
classes (the preset's steps and guidance) and without (guidance 0). What is scored already is not
run again, so a study may be stopped and go on; the table is of all there is.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from ddpm import load, preset, train
from ddpm.config import Config, to_dict, validated
from ddpm.evaluation.evaluate import evaluate
from ddpm.evaluation.reference import load_reference
from ddpm.utils.files import free_name

MNIST: dict[str, dict[str, Any]] = {
    "preset": {},
    "attention at 7x7": {"unet": {"attention": (4,)}},
    "one block": {"unet": {"blocks": 1}},
    "24 channels": {"unet": {"channels": 24}},
    "48 channels": {"unet": {"channels": 48}},
    "three levels, one block": {"unet": {"mults": (1, 2, 3), "blocks": 1}},
    "patch 4, 96 channels": {
        "unet": {"patch": 4, "channels": 96, "mults": (1,), "attention": (4,)}
    },
    "uniform times": {"diffusion": {"time_sampling": "uniform"}},
    "stratified times": {"diffusion": {"time_sampling": "stratified"}},
    "logit-normal times": {"diffusion": {"weight": "simple", "time_sampling": "logit-normal"}},
    "unweighted": {"diffusion": {"weight": "simple", "time_sampling": "uniform"}},
    "no min_weight": {"diffusion": {"min_weight": 0.0}},
    "min_weight 0.1": {"diffusion": {"min_weight": 0.1}},
    "min_weight 1": {"diffusion": {"min_weight": 1.0}},
    "target eps, no min_weight": {"diffusion": {"target": "eps", "min_weight": 0.0}},
    "target x0": {"diffusion": {"target": "x0"}},
    "linear schedule": {"diffusion": {"schedule": "linear"}},
    "sigmoid schedule": {"diffusion": {"schedule": "sigmoid"}},
    "lr 1.5e-3": {"train": {"lr": 1.5e-3}},
    "lr 6e-3": {"train": {"lr": 6e-3}},
    "batch 16": {"train": {"batch": 16}},
    "batch 64": {"train": {"batch": 64}},
    "batch 128": {"train": {"batch": 128}},
    "betas 0.9, 0.999": {"train": {"betas": (0.9, 0.999)}},
    "EMA 0.99": {"train": {"ema": 0.99}},
    "falls from the start": {"train": {"decay": 1.0}},
    "falls in the last third": {"train": {"decay": 0.33}},
    "labels dropped 0.2": {"train": {"label_drop": 0.2}},
}
CIFAR10: dict[str, dict[str, Any]] = {
    "preset": {},
    "wider below: 1, 3, 4": {"unet": {"mults": (1, 3, 4)}},
    "three levels, one block": {"unet": {"mults": (1, 2, 3), "blocks": 1}},
    "two levels, 96 channels": {"unet": {"channels": 96, "mults": (1, 2)}},
    "48 channels": {"unet": {"channels": 48}},
    "patch 4, 96 channels": {"unet": {"channels": 96, "patch": 4}},
    "patch 4, 128 channels": {"unet": {"channels": 128, "mults": (1, 2), "patch": 4}},
    "attention at 4x4": {"unet": {"attention": (8,)}},
    "lr 1e-3": {"train": {"lr": 1e-3}},
    "lr 2e-3": {"train": {"lr": 2e-3}},
    "lr 4e-3": {"train": {"lr": 4e-3}},
    "batch 32": {"train": {"batch": 32}},
    "batch 128": {"train": {"batch": 128}},
    "betas 0.9, 0.999": {"train": {"betas": (0.9, 0.999)}},
    "float32": {"train": {"precision": "no"}},
    "uniform times": {"diffusion": {"time_sampling": "uniform"}},
    "unweighted": {"diffusion": {"weight": "simple", "time_sampling": "uniform"}},
    "min_weight 1": {"diffusion": {"min_weight": 1.0}},
}
VARIANTS = {"mnist": MNIST, "cifar10-cpu": CIFAR10}


@dataclass
class Options:
    preset: tyro.conf.Positional[str] = "mnist"
    """Where every variant begins."""
    data: str | None = None
    """Instead of the preset's."""
    root: str = "data"
    """Where named sets lie."""
    features: str | None = None
    """What sees the samples; see `ddpm evaluate --help`."""
    out: Path = Path("studies/mnist")
    """Folder of the runs and of scores.jsonl."""
    minutes: float = 2.0
    """Each variant's training time."""
    only: tuple[str, ...] = ()
    """Names of variants; all of them if none is named."""
    n: int = 2000
    """Samples in a score."""
    seed: int = 0


def varied(base: Config, changes: dict[str, Any]) -> Config:
    table = asdict(base)
    for name, value in changes.items():
        table[name] = table[name] | value if isinstance(value, dict) else value
    return validated(Config, table)


def main(options: Options) -> None:
    base = replace(
        preset(options.preset), root=options.root, minutes=options.minutes, seed=options.seed
    )
    base = replace(base, data=options.data or base.data)
    reference = load_reference(base.data, root=options.root, features=options.features)
    variants = VARIANTS[options.preset]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "scores.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for name in options.only or variants:
        config = varied(base, variants[name])
        key = {"name": name, "minutes": options.minutes, "n": options.n, "config": to_dict(config)}
        if any(key.items() <= row.items() for row in done):
            continue
        words = f"{name} {options.minutes:g} {options.seed}".replace(",", "").split()
        result = train(config, free_name(options.out / "-".join(words)), device="cpu")
        if not result.finished:
            break
        checkpoint = load(result.out)
        row: dict[str, Any] = {**key, "images": result.images_seen, "loss": result.loss}
        row["parameters"] = sum(p.numel() for p in checkpoint.net.parameters())
        with_class = evaluate(checkpoint, data=reference, n=options.n)
        settings = replace(config.sample, guidance=0.0)
        without = evaluate(checkpoint, data=reference, n=options.n, settings=settings)
        row |= {"distance": with_class.distance, "as_asked": with_class.class_accuracy,
                "unconditional": without.distance, "floor": without.floor}  # fmt: skip
        done.append(row)
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
    print(table(done))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| variant | minutes | parameters | images | as asked | distance | without classes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        lines.append(
            f"| {r['name']} | {r['minutes']:g} | {r['parameters'] / 1e6:.2f} M | {r['images']:,} | "
            f"{r['as_asked']:.1%} | {r['distance'] / r['floor']:.2f} | "
            f"{r['unconditional'] / r['floor']:.2f} |"
        )
    return "\n".join([*lines, "", "Distances in floors: test images against training images."])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
