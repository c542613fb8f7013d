"""Put a run's weights into the box: rounded to half precision, which halves the file.

    python scripts/ship.py runs/mnist-long --name mnist

`load` brings them back to float32. They are sampled as the preset of that name says. Scores in the
model card are those of the rounded weights.
"""

from dataclasses import dataclass, replace

import tyro

from ddpm import load, preset, save
from ddpm.checkpoint import WEIGHTS


@dataclass
class Options:
    run: tyro.conf.Positional[str]
    name: str = "mnist"


def main(options: Options) -> None:
    checkpoint = load(options.run)
    config = replace(checkpoint.config, root="data", sample=preset(options.name).sample)
    path = WEIGHTS / f"{options.name}.safetensors"
    save(path, checkpoint.net.half(), config, checkpoint.data, checkpoint.step, checkpoint.images)
    path.chmod(0o644)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {checkpoint.images:,} images")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
