"""Which guidance, and how much noise on the way, suits a network?

    python scripts/guidance.py runs/colour --data cifar10-train.zip --features cifar-net

Scores as many samples with every combination, in the checkpoint's other settings, and prints a row
for each: network evaluations, distance in floors, and how many are classified as asked.
"""

from dataclasses import dataclass, replace
from itertools import product

import tyro

from ddpm import load
from ddpm.evaluation.evaluate import evaluate
from ddpm.evaluation.reference import load_reference
from ddpm.utils.device import best_device


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str]
    data: str = "cifar10"
    root: str = "data"
    features: str | None = None
    n: int = 2000
    steps: tuple[int, ...] = ()
    """By default as the checkpoint says."""
    guidance: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0)
    above: tuple[float, ...] = (0.0,)
    """Guided at times above this share of T alone."""
    eta: tuple[float, ...] = (0.5,)


def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    reference = load_reference(
        options.data, root=options.root, features=options.features, device=best_device()
    )
    sample = checkpoint.config.sample
    print("| steps | η | guidance | above | evaluations | distance / floor | as asked |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for steps, eta, guidance, above in product(
        options.steps or (sample.steps,), options.eta, options.guidance, options.above
    ):
        if guidance in (0, 1) and above != options.above[0]:
            continue  # the same: there is no second evaluation
        settings = replace(sample, steps=steps, eta=eta, guidance=guidance, guidance_above=above)
        report = evaluate(checkpoint, data=reference, n=options.n, settings=settings)
        asked = "" if report.class_accuracy is None else f"{report.class_accuracy:.1%}"
        print(
            f"| {steps} | {eta} | {guidance} | {above} | {report.protocol.sampling['nfe']} "
            f"| {report.distance / report.floor:.2f} | {asked} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
