"""Small image classifiers whose features samples are compared by: of digits, and of CIFAR-10."""

from safetensors.torch import load
from torch import Tensor, nn

from ..checkpoint.header import WEIGHTS_FOLDER


class DigitNet(nn.Module):
    """Digits, float32 (B, 1, 28, 28) in [−1, 1], to 128 features and 10 classes.

    Inception's features are learned from photographs in colour; these, from digits. A plain
    convolutional network of 140,458 parameters, trained by `scripts/train_digit_net.py`.
    """

    SHAPE = (1, 28, 28)
    CLASSES = tuple("0123456789")
    WEIGHTS = WEIGHTS_FOLDER / "digit-net.safetensors"

    def __init__(self) -> None:
        super().__init__()

        def layer(c_in: int, c_out: int) -> list[nn.Module]:
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]

        self.body = nn.Sequential(
            *layer(1, 32), *layer(32, 32), nn.MaxPool2d(2),
            *layer(32, 64), *layer(64, 64), nn.MaxPool2d(2),
            *layer(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 128), the spatial mean of the last layer, and logits (B, 10)."""
        features = self.body(x)
        return features, self.head(features)


class CifarNet(nn.Module):
    """Colour images, float32 (B, 3, 32, 32) in [−1, 1], to 256 features and 10 classes.

    For where the Inception network is not available: distances in these features compare our own
    samples with one another, not with published scores. A plain convolutional network of two
    million parameters, trained by `scripts/train_cifar_net.py`. Its first layer is not trained: it
    whitens patches of 2x2 pixels.
    """

    SHAPE = (3, 32, 32)
    CLASSES = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    WEIGHTS = WEIGHTS_FOLDER / "cifar-net.safetensors"

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
        """Return features (B, 256), the spatial maximum of the last layer, and logits (B, 10).

        In evaluation mode, features are averaged over the image and its mirror image.
        """
        features = self.body(self.whiten(x))
        if not self.training:
            features = (features + self.body(self.whiten(x.flip(-1)))) / 2
        return features, self.head(features) / 9


def digit_net() -> DigitNet:
    """Return the bundled digit classifier, in evaluation mode on the CPU."""
    net = DigitNet()
    net.load_state_dict(load(DigitNet.WEIGHTS.read_bytes()))
    return net.eval().requires_grad_(False)


def cifar_net() -> CifarNet:
    """Return the bundled classifier of CIFAR-10, in evaluation mode on the CPU."""
    net = CifarNet()
    net.load_state_dict(load(CifarNet.WEIGHTS.read_bytes()))
    return net.eval().requires_grad_(False)
