"""Quality against network evaluations: every sampler, every spacing of its steps.

    python scripts/few_steps.py mnist --root data --out few-steps.jsonl

The Fréchet distance of 2,000 digits, in floors, for each number of steps. Without guidance, the
default here, a step is one evaluation; a guided step is two. What is scored already is not scored
again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import tyro

from ddpm import load
from ddpm.config import Spacing
from ddpm.evaluation.evaluate import evaluate
from ddpm.evaluation.reference import load_reference
from ddpm.utils.device import best_device

SAMPLERS: dict[str, dict[str, Any]] = {
    "ddpm": {"sampler": "ddpm", "eta": 0.0},
    "ddim": {"sampler": "ddim", "eta": 0.0},
    "ddim, η = 0.6": {"sampler": "ddim", "eta": 0.6},
    "dpm++": {"sampler": "dpm++", "eta": 0.0},
}


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str] = "mnist"
    """Run, checkpoint, or the name of bundled weights."""
    root: str = "data"
    """Where MNIST lies."""
    out: Path = Path("few-steps.jsonl")
    steps: tuple[int, ...] = (5, 10, 15, 20, 50, 100)
    even: tuple[int, ...] = (1000,)
    """More numbers of steps, for which the even spacing is enough."""
    guidance: float = 0.0
    only: tuple[str, ...] = tuple(SAMPLERS)
    """Samplers."""
    n: int = 2000


def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    reference = load_reference("mnist", root=options.root, device=best_device())
    shared = {"network": checkpoint.weights_hash(), "guidance": options.guidance, "n": options.n}
    done = []
    if options.out.exists():
        done = [json.loads(line) for line in options.out.read_text().splitlines()]
    spacings = get_args(Spacing)
    jobs = [(steps, spacing) for steps in options.steps for spacing in spacings]
    jobs += [(steps, "even") for steps in options.even]
    for steps, spacing in jobs:
        for sampler in options.only:
            key = {**shared, "sampler": sampler, "spacing": spacing, "steps": steps}
            if any(key.items() <= row.items() for row in done):
                continue
            settings = replace(
                checkpoint.config.sample, spacing=spacing, steps=steps, guidance=options.guidance,
                **SAMPLERS[sampler],
            )  # fmt: skip
            report = evaluate(checkpoint, data=reference, n=options.n, settings=settings)
            row = {**key, "nfe": report.protocol.sampling["nfe"], "distance": report.distance,
                   "floor": report.floor, "as_asked": report.class_accuracy}  # fmt: skip
            done.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(table([row for row in done if shared.items() <= row.items()]))


def table(rows: list[dict[str, Any]]) -> str:
    """Samplers and spacings down, numbers of steps across."""
    columns = sorted({row["steps"] for row in rows})
    lines = [
        f"| sampler | spacing | {' | '.join(map(str, columns))} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for sampler, spacing in dict.fromkeys((row["sampler"], row["spacing"]) for row in rows):
        found = {
            row["steps"]: f"{row['distance'] / row['floor']:.2f}"
            for row in rows
            if (row["sampler"], row["spacing"]) == (sampler, spacing)
        }
        lines.append(f"| {sampler} | {spacing} | {' | '.join(found.get(c, '') for c in columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
