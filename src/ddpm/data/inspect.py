"""What a person should hear of a set of images before it is learned."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.ema import warm_decay
from ..utils.images import to_float
from .folder import ImageDataset

FEW = 1000  # images: a network that is trained on fewer will learn them by heart
UNEVEN = 10  # times as many images in the largest class as in the smallest


def inspection_notes(images: ImageDataset, flip: bool) -> list[str]:
    """Classes, mirror images, and whether there are enough: quick enough for every training."""
    lines = []
    n = len(images)
    if images.labels is not None:
        counts = images.labels.bincount(minlength=len(images.classes))
        few, many = int(counts.min()), int(counts.max())
        if many > UNEVEN * max(few, 1):
            rare, common = images.classes[counts.argmin()], images.classes[counts.argmax()]
            lines.append(
                f"classes are uneven: {few:,} of {rare}, {many:,} of {common}; the rare ones will "
                f"be learned badly"
            )
    accuracy = mirror_accuracy(images.images)
    if flip and accuracy > 0.65:
        lines.append(
            f"mirror images can be told from these {accuracy:.0%} of the time, so --flip would "
            f"teach what is not there: leave it out"
        )
    elif not flip and accuracy < 0.56 and n < 100 * FEW:
        lines.append(
            f"mirror images look like these (told apart {accuracy:.0%} of the time): --flip would "
            f"double what there is to learn from"
        )
    if n < FEW:
        lines.append(
            f"{n:,} images are few: a network will learn them by heart. Take a small one with "
            f"--unet.dropout 0.2, stop early, and look with ddpm evaluate --memorization"
        )
    return lines


def ema_note(step: int, decay: float) -> str | None:
    """What to hear of averaged weights that are younger than the average is long; `step` of 0 is
    unknown."""
    whole, spans = 1 / (1 - decay), 1 / (1 - warm_decay(decay, step))
    if step == 0 or step >= whole:
        return None
    return (
        f"these weights are of step {step:,}, and are to be an average over {whole:,.0f}: as yet "
        f"it spans {spans:,.0f}, and longer training gives better ones"
    )


def mirror_accuracy(images: Tensor, most: int = 4000, side: int = 12) -> float:
    """How often a linear classifier, on images it has not seen, tells them from their mirror
    images: 0.5 where mirroring changes nothing.

    Only what changes sign under mirroring can tell, a = x − mirror(x), and the classifier is ridge
    regression to 1: an image is told right where w·a > 0.
    """
    stride = max(1, len(images) // most)
    x = to_float(images[::stride][:most]).mean(1, keepdim=True)
    x = F.adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3])))
    a = (x - x.flip(-1)).flatten(1)
    a = a[:, a.square().sum(0) > 0]
    learn, test = a[::2], a[1::2]
    if len(test) < 20 or a.shape[1] == 0:
        return 0.5
    ridge = 0.01 * len(learn) * learn.var() * torch.eye(a.shape[1])
    w = torch.linalg.solve(learn.T @ learn + ridge, learn.sum(0))
    return (test @ w > 0).float().mean().item()
