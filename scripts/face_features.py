"""Features of faces, from the last network of MTCNN, for `ddpm evaluate --features`.

    python scripts/face_features.py onet.pt
    ddpm evaluate runs/faces --features onet.pt

The O-Net of MTCNN (Zhang et al. 2016, as facenet-pytorch carries it) looks at 48x48 pixels and
tells whether they are a face and where its eyes, nose and mouth are. Its 256 features before that
say what a face looks like, and need no download; of aligned 64x64 faces they are those of the
middle, not of hair and background. Writes them as TorchScript: uint8 (B, 3, 64, 64) to (B, 256).
"""

from dataclasses import dataclass

import torch
import tyro
from facenet_pytorch.models.mtcnn import ONet
from torch import Tensor, nn


@dataclass
class Options:
    out: tyro.conf.Positional[str]


class Features(nn.Module):
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
