"""Feature networks, which samples and real images are compared by."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..utils.errors import UserError
from ..utils.images import to_float
from . import cifar_net, digit_net

INCEPTION_HASH = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # SHA-256
INCEPTION = f"weights-inception-2015-12-05-{INCEPTION_HASH[:8]}.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"

Extract = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""uint8 images (B, C, H, W) to features (B, D), and logits (B, K) where there are classes."""


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A feature network, ready on its device.

    name     digit-net, cifar-net, inception, or a file's
    hash     the first 16 digits of the SHA-256 of its weights
    shape    (C, H, W) of the images that it takes; None: any
    classes  that its logits tell apart; () where it has none, or where they are not the data's
    """

    name: str
    hash: str
    extract: Extract
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.extract(images)
        return features.float().cpu(), None if logits is None else logits.float().cpu()


def load_feature_extractor(
    name: str | None, shape: tuple[int, ...], device: torch.device | str
) -> FeatureExtractor:
    """The feature network of that name or in that file, for images of this shape (C, H, W).

    None: digit-net for 28x28 in gray; inception for all else. Never one in another's place.
    Raises UserError where it cannot be had.
    """
    if name is None:
        name = "digit-net" if tuple(shape) == digit_net.SHAPE else "inception"
    if name == "digit-net":
        return own(name, digit_net.WEIGHTS, device)
    if name == "cifar-net":
        return own(name, cifar_net.WEIGHTS, device)
    if name == "inception":
        check_fidelity()
        return inception(inception_weights(), device)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"there is no feature network {name!r}: use inception, digit-net, cifar-net or a file"
        )
    if path.suffix == ".safetensors":
        return own(path.name, path, device)
    if path.suffix == ".pth":
        check_fidelity()
        return inception(path, device)
    return scripted(path, shape, device)


def own(name: str, path: Path, device: torch.device | str) -> FeatureExtractor:
    """One of our classifiers, from its safetensors file."""
    try:
        tensors = load_file(path)
        colour = "whiten.weight" in tensors
        net: nn.Module = cifar_net.CifarNet() if colour else digit_net.DigitNet()
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError):
        raise UserError(f"{path} holds neither a digit-net nor a cifar-net") from None
    net = net.float().eval().requires_grad_(False).to(device)
    of = cifar_net if colour else digit_net
    return FeatureExtractor(name, file_hash(path), lambda u: net(to_float(u)), of.SHAPE, of.CLASSES)


def inception(path: Path, device: torch.device | str) -> FeatureExtractor:
    """The Inception network of the published scores, through torch-fidelity.

    Its file is a pickle, which could run anything: it is opened only if it is the very file that
    everybody has, to the last digit of its hash: another file with the same few is soon made.
    """
    digest = file_hash(path, 64)
    if digest != INCEPTION_HASH:
        raise UserError(
            f"{path} is not the Inception network that scores are published with: its SHA-256 "
            f"is {digest}, not {INCEPTION_HASH}; download it again from "
            f"{INCEPTION_URL}"
        )
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    net = FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    ).to(device)

    def extract(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = net(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)
        return features, logits

    return FeatureExtractor("inception", digest[:16], extract)


def check_fidelity() -> None:
    """Raises UserError where torch-fidelity is missing, before anything is downloaded for it."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UserError(
            "Inception features need torch-fidelity: pip install 'ddpm-from-scratch[eval]'"
        )


def inception_weights() -> Path:
    """Where torch keeps what it downloads; downloaded to there where it is missing."""
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), INCEPTION_HASH)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"the Inception network could not be downloaded ({error}). Put {INCEPTION_URL} at "
                f"{path} or name its place by --features; or name other features, such as "
                f"--features cifar-net, whose distances are not comparable to published ones"
            ) from None
    return path


def scripted(path: Path, shape: tuple[int, ...], device: torch.device | str) -> FeatureExtractor:
    """A TorchScript network: uint8 images (B, 3, H, W) to features (B, D). Two images (C, H, W) try
    it."""
    try:
        net = torch.jit.load(path, map_location=device).eval()
    except RuntimeError:
        raise UserError(f"{path} is not TorchScript, nor .safetensors or .pth") from None

    def extract(u: Tensor) -> tuple[Tensor, None]:
        return net(u.expand(-1, 3, -1, -1)).flatten(1), None

    extractor = FeatureExtractor(f"TorchScript {path.name}", file_hash(path), extract)
    try:
        features, _ = extractor(torch.zeros(2, *shape, dtype=torch.uint8, device=device))
        fits = features.ndim == 2 and len(features) == 2 and bool(features.isfinite().all())
        why = f"it gave {tuple(features.shape)}" if len(features) != 2 else "they are not finite"
    except Exception as error:  # a network of any kind, which may do anything
        fits, why = False, str(error).strip().split("\n")[-1]
    if not fits:
        raise UserError(f"{path} does not take uint8 images (B, 3, H, W) to features (B, D): {why}")
    return extractor


def file_hash(path: Path, digits: int = 16) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
