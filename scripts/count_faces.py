"""How many images are faces, by MTCNN?

    python scripts/count_faces.py samples.npz --n 100

MTCNN (Zhang et al. 2016, as facenet-pytorch carries it) was made for photographs, so images are
upscaled four times first. One counts where the surest face in it has at least the `probability`.
Real images, counted in the same way, say what can be reached.
"""

from dataclasses import dataclass

import tyro
from facenet_pytorch import MTCNN
from PIL import Image

from ddpm import load_images
from ddpm.utils.images import to_pil

BATCH = 20


@dataclass
class Options:
    images: tyro.conf.Positional[str]
    n: int = 100
    probability: float = 0.95
    scale: int = 4


def surest(mtcnn: MTCNN, images: list[Image.Image]) -> list[float]:
    """The probability of the surest face in each; 0 where none is found."""
    _, found = mtcnn.detect(images)
    return [max((float(p) for p in each if p is not None), default=0.0) for each in found]


def main(options: Options) -> None:
    mtcnn = MTCNN(device="cpu", select_largest=False)
    images = [to_pil(image) for image in load_images(options.images).images[: options.n]]
    large = [
        image.convert("RGB").resize(
            (image.width * options.scale, image.height * options.scale), Image.Resampling.BICUBIC
        )
        for image in images
    ]
    found = [p for i in range(0, len(large), BATCH) for p in surest(mtcnn, large[i : i + BATCH])]
    sure = sum(p >= options.probability for p in found)
    print(f"{sure} of {len(found)} are faces, at a probability of {options.probability} or more")
    if unsure := [i for i, p in enumerate(found) if p < options.probability]:
        print("not: " + ", ".join(str(i) for i in unsure))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
