"""Bundle a run's weights with the package: rounded to half precision, which halves the file.

    python scripts/ship.py runs/mnist-long --name mnist --eta 0.6 --guidance 1.6

`load` brings them back to float32. They are sampled as the preset of that name says, or one that
they are to be `like`, but for what is given here; and what they were trained on has the preset's
name for it, wherever it lay. Scores in the model card are those of the rounded weights.
"""

from dataclasses import dataclass, replace

import tyro

from ddpm import load, preset, save
from ddpm.checkpoint.header import WEIGHTS_FOLDER
from ddpm.generation.generate import check_guide
from ddpm.generation.settings import check_guidance, with_options


@dataclass
class Options:
    run: tyro.conf.Positional[str]
    name: str = "mnist"
    like: str | None = None
    steps: int | None = None
    eta: float | None = None
    guidance: float | None = None
    guidance_above: float | None = None
    guide: str | None = None
    """A weaker version of the network, for the file to carry."""


def main(options: Options) -> None:
    checkpoint, like = load(options.run), preset(options.like or options.name)
    sample = with_options(
        like.sample, steps=options.steps, eta=options.eta, guidance=options.guidance,
        guidance_above=options.guidance_above,
    )  # fmt: skip
    config = replace(checkpoint.config, data=like.data, root="data", sample=sample)
    data = replace(checkpoint.data, source=like.data)
    path = WEIGHTS_FOLDER / f"{options.name}.safetensors"
    guide = load(options.guide) if options.guide else None
    check_guidance(sample, guide is not None)
    if guide is not None:
        check_guide(guide, checkpoint)
        guide.net.half()
    c = checkpoint
    save(path, c.net.half(), config, data, c.step, c.images_seen, guide=guide)
    path.chmod(0o644)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {checkpoint.images_seen:,} images")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
