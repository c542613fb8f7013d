"""A small classifier of CIFAR-10's ten classes: features for colour images of 32x32.

Where the Inception network cannot be had, distances in its features stand in: they compare our
own samples with one another, not with published scores.
"""

from pathlib import Path

from torch import Tensor, nn

SHAPE = (3, 32, 32)
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
WEIGHTS = Path(__file__).parents[1] / "weights" / "cifar-net.safetensors"


class CifarNet(nn.Module):
    """Images, float32 (B, 3, 32, 32) in [−1, 1], to 256 features and 10 classes.

    A plain convolutional network of two million parameters, which `scripts/train_cifar_net.py`
    trains. Its first layer, which is not trained, takes patches of 2x2 pixels to their principal
    components of equal variance.
    """

    def __init__(self) -> None:
        super().__init__()

        def layer(c_in: int, c_out: int, pool: bool = False) -> list[nn.Module]:
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            return [conv, *([nn.MaxPool2d(2)] if pool else []), nn.BatchNorm2d(c_out), nn.GELU()]

        self.whiten = nn.Conv2d(3, 24, 2)
        self.body = nn.Sequential(
            nn.GELU(),
            *layer(24, 64, pool=True), *layer(64, 64),
            *layer(64, 256, pool=True), *layer(256, 256),
            *layer(256, 256, pool=True), *layer(256, 256),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 256), the greatest over the image of the last layer; and logits (B, 10).

        In use, features are the mean of those of the image and its mirror image.
        """
        features = self.body(self.whiten(x))
        if not self.training:
            features = (features + self.body(self.whiten(x.flip(-1)))) / 2
        return features, self.head(features) / 9
