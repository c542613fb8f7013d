"""A small classifier of handwritten digits: its features are what digits are scored by."""

from pathlib import Path

from safetensors.torch import load
from torch import Tensor, nn

SHAPE = (1, 28, 28)
CLASSES = tuple("0123456789")
WEIGHTS = Path(__file__).parents[1] / "weights" / "digit-net.safetensors"


class DigitNet(nn.Module):
    """Digits, float32 (B, 1, 28, 28) in [−1, 1], to 128 features and 10 classes.

    Inception's features were learned from photographs in colour; these, from digits. A plain
    convolutional network of 140,458 parameters, which `scripts/train_digit_net.py` trains.
    """

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
        """Features (B, 128), the averages over the image of the last layer; and logits (B, 10)."""
        features = self.body(x)
        return features, self.head(features)


def digit_net() -> DigitNet:
    """The trained network that comes with the package, ready for use on the CPU."""
    net = DigitNet()
    net.load_state_dict(load(WEIGHTS.read_bytes()))
    return net.eval().requires_grad_(False)
