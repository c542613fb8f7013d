"""Count the images that show a face, as MTCNN finds them.

    python scripts/count_faces.py samples.npz --n 100

MTCNN (Zhang et al. 2016, in facenet-pytorch) is for photographs, so images are upscaled four times
first. An image counts if the most probable face in it has at least the `probability`. Count real
images in the same way for comparison.
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
    """An npz, a zip or a folder."""
    n: int = 100
    """Count among the first n."""
    probability: float = 0.95
    """Least probability of a face."""
    scale: int = 4
    """Upscale by this factor first."""


def face_probabilities(mtcnn: MTCNN, images: list[Image.Image]) -> list[float]:
    """Return the probability of the most probable face in each image, 0 where none is found."""
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
    batches = [large[i : i + BATCH] for i in range(0, len(large), BATCH)]
    found = [p for batch in batches for p in face_probabilities(mtcnn, batch)]
    others = [i for i, p in enumerate(found) if p < options.probability]
    faces = len(found) - len(others)
    print(f"{faces} of {len(found)} are faces, at a probability of {options.probability} or more")
    if others:
        print("the others: " + ", ".join(map(str, others)))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
