"""Quality against network evaluations: every sampler, every spacing of its steps.

    python scripts/few_steps.py mnist --root data --out few-steps.jsonl [--guidance 0]

The Fréchet distance of 2,000 digits, in floors, for each number of steps. Without guidance a step
is one evaluation; with it, two. What is scored already is not scored again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import tyro

from ddpm import load
from ddpm.config import Sampler, Spacing
from ddpm.device import best_device
from ddpm.evaluate import DigitJudge, evaluate


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str] = "mnist"
    """Run, checkpoint, or weights in the box."""
    root: str = "data"
    """Where MNIST lies."""
    out: Path = Path("few-steps.jsonl")
    steps: tuple[int, ...] = (5, 10, 15, 20, 50, 100)
    even: tuple[int, ...] = (1000,)
    """More numbers of steps, for which the even spacing is enough."""
    guidance: float = 0.0
    samplers: tuple[Sampler, ...] = get_args(Sampler)
    n: int = 2000
    batch: int = 64


def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    judge = DigitJudge(options.root, best_device())
    done = []
    if options.out.exists():
        done = [json.loads(line) for line in options.out.read_text().splitlines()]
    for steps in (*options.steps, *options.even):
        for sampler in options.samplers:
            for spacing in get_args(Spacing) if steps in options.steps else ("even",):
                key = {"sampler": sampler, "spacing": spacing, "steps": steps,
                       "guidance": options.guidance, "n": options.n}  # fmt: skip
                if any(key.items() <= row.items() for row in done):
                    continue
                settings = replace(
                    checkpoint.config.sample, sampler=sampler, spacing=spacing, steps=steps,
                    guidance=options.guidance, eta=0.0,
                )  # fmt: skip
                score = evaluate(
                    checkpoint, judge, options.n, settings=settings, batch=options.batch
                )
                row = {**key, "distance": score.distance, "floor": score.floor,
                       "as_asked": score.as_asked}  # fmt: skip
                done.append(row)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    rows = [r for r in done if r["guidance"] == options.guidance and r["n"] == options.n]
    columns = sorted({r["steps"] for r in rows})
    print(f"| sampler | spacing | {' | '.join(map(str, columns))} |")
    print(f"| --- | --- |{' --- |' * len(columns)}")
    for sampler in get_args(Sampler):
        for spacing in get_args(Spacing):
            found = {
                r["steps"]: r["distance"] / r["floor"]
                for r in rows
                if (r["sampler"], r["spacing"]) == (sampler, spacing)
            }
            cells = [f"{found[c]:.2f}" if c in found else "" for c in columns]
            if found:
                print(f"| {sampler} | {spacing} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
