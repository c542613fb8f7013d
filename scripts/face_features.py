"""Features of faces, from the last network of MTCNN, for `ddpm evaluate --features`.

    python scripts/face_features.py onet.pt
    ddpm evaluate runs/faces --features onet.pt

The O-Net of MTCNN (Zhang et al. 2016, in facenet-pytorch) decides whether 48x48 pixels are a face,
and where its eyes, nose and mouth are. Its 256 last hidden features describe a face, and need no
download; of aligned 64x64 faces only the middle is used, without hair and background. They are
written as TorchScript: uint8 (B, 3, 64, 64) to float32 (B, 256).
"""

from dataclasses import dataclass

import torch
import tyro
from facenet_pytorch.models.mtcnn import ONet
from torch import Tensor, nn


@dataclass
class Options:
    out: tyro.conf.Positional[str]
    """The file to write, x.pt."""


class Features(nn.Module):
    """uint8 images (B, 3, 64, 64) to float32 features (B, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.onet = ONet()

    def forward(self, images: Tensor) -> Tensor:
        x, net = (images[:, :, 8:56, 8:56].float() - 127.5) / 128, self.onet
        x = net.pool1(net.prelu1(net.conv1(x)))
        x = net.pool2(net.prelu2(net.conv2(x)))
        x = net.pool3(net.prelu3(net.conv3(x)))
        x = net.prelu4(net.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        return net.prelu5(net.dense5(x))


@torch.no_grad()
def main(options: Options) -> None:
    features = Features().eval()
    example = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    torch.jit.save(torch.jit.trace(features, example), options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
