"""Feature networks, by which samples are compared with real images."""

import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.error import URLError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..data.cache import cache_folder
from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.errors import UserError
from ..utils.images import to_float
from .classifiers import CifarNet, DigitNet
from .metrics import Moments

INCEPTION_HASH = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # SHA-256
INCEPTION = f"weights-inception-2015-12-05-{INCEPTION_HASH[:8]}.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
BATCH, OF_INCEPTION = 250, 50  # images that pass through a feature network at once

Extract = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""uint8 images (B, C, H, W) to features (B, D), and logits (B, K) where there are classes."""
Progress = Callable[[str, int, int], object]
"""Called with the name of a stage, how much of it is done, and how much there is in all."""


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A feature network on its device. Call it with uint8 images (B, C, H, W), wherever they are,
    for features (B, D) and logits (B, K) or None: float32 on the CPU.

    name     digit-net, cifar-net, inception, or a file's
    hash     the first 16 digits of the SHA-256 of its weights
    shape    (C, H, W) of the images that it takes; None: any
    classes  that its logits tell apart; () where it has none, or where they are not the data's
    """

    name: str
    hash: str
    extract: Extract
    device: torch.device
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()

    @property
    def is_inception(self) -> bool:
        return self.name == "inception"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.extract(images.to(self.device))
        return features.float().cpu(), None if logits is None else logits.float().cpu()


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """The features of N images: Σ f and Σ f fᵀ; and, where they were kept, the features (N, D) and
    the logits (N, K)."""

    moments: Moments
    features: Tensor | None = None
    logits: Tensor | None = None


# ---- the networks ----------------------------------------------------------------------------


def load_feature_extractor(
    name: str | None, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Return the feature network of that name or in that file, for images of this shape (C, H, W).

    None stands for digit-net for gray images of 28x28, and for inception for all others. Raise
    UserError where the network is not available; another never takes its place.
    """
    device = torch.device(device)
    if name is None:
        name = "digit-net" if tuple(shape) == DigitNet.SHAPE else "inception"
    if name in ("digit-net", "cifar-net"):
        weights = DigitNet.WEIGHTS if name == "digit-net" else CifarNet.WEIGHTS
        return load_classifier(name, weights, device)
    if name == "inception":
        require_torch_fidelity()
        return load_inception(inception_weights(), device)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"there is no feature network {name!r}: use inception, digit-net, cifar-net or a file"
        )
    if path.suffix == ".safetensors":
        return load_classifier(path.name, path, device)
    if path.suffix == ".pth":
        require_torch_fidelity()
        return load_inception(path, device)
    return load_torchscript(path, shape, device)


def load_classifier(name: str, path: Path, device: torch.device) -> FeatureExtractor:
    """Return a DigitNet or a CifarNet from its safetensors file."""
    try:
        tensors = load_file(path)
        kind = CifarNet if "whiten.weight" in tensors else DigitNet
        net = kind()
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError):
        raise UserError(f"{path} holds neither a digit-net nor a cifar-net") from None
    net = net.float().eval().requires_grad_(False).to(device)

    def extract(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = net(to_float(images))
        return features, logits

    return FeatureExtractor(name, file_hash(path), extract, device, kind.SHAPE, kind.CLASSES)


def load_inception(path: Path, device: torch.device) -> FeatureExtractor:
    """Return the Inception network of published scores, through torch-fidelity.

    Its file is a pickle, which could run any code. It is opened only if its whole SHA-256 is that
    of the published file: another file with the same first digits is easily made.
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

    return FeatureExtractor("inception", digest[:16], extract, device)


def require_torch_fidelity() -> None:
    """Raise UserError where torch-fidelity is missing, before anything is downloaded for it."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UserError(
            'Inception features need torch-fidelity: pip install "ddpm-from-scratch[eval]"'
        )


def inception_weights() -> Path:
    """Return the file in torch's cache, downloaded where it is missing."""
    try:
        path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION).expanduser()
    except RuntimeError:
        raise UserError(
            "there is no home folder for the Inception network: set TORCH_HOME to a folder that "
            "can be written, or name its file by --features"
        ) from None
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), INCEPTION_HASH)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"the Inception network could not be downloaded ({error}). Save {INCEPTION_URL} as "
                f"{path}; or name to ddpm evaluate its file by --features, or other features, such "
                f"as cifar-net, whose distances are not comparable to published ones"
            ) from None
    return path


def load_torchscript(path: Path, shape: tuple[int, ...], device: torch.device) -> FeatureExtractor:
    """Return a TorchScript network, from uint8 images (B, 3, H, W) to features (B, D), after a test
    with two images (C, H, W)."""
    try:
        net = torch.jit.load(path, map_location=device).eval()
    except RuntimeError:
        raise UserError(f"{path} is not TorchScript, nor .safetensors or .pth") from None

    def extract(u: Tensor) -> tuple[Tensor, None]:
        return net(u.expand(-1, 3, -1, -1)).flatten(1), None

    extractor = FeatureExtractor(f"TorchScript {path.name}", file_hash(path), extract, device)
    try:
        features, _ = extractor(torch.zeros(2, *shape, dtype=torch.uint8))
        fits = features.ndim == 2 and len(features) == 2 and bool(features.isfinite().all())
        why = f"it gave {tuple(features.shape)}" if len(features) != 2 else "they are not finite"
    except Exception as error:  # any network, which may raise anything
        fits, why = False, str(error).strip().split("\n")[-1]
    if not fits:
        raise UserError(f"{path} does not take uint8 images (B, 3, H, W) to features (B, D): {why}")
    return extractor


def file_hash(path: Path, digits: int = 16) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]


# ---- the features of a set -------------------------------------------------------------------


def extract(
    extractor: FeatureExtractor,
    images: Tensor,
    name: str = "images",
    *,
    file: IO[bytes] | None = None,
    logits: bool = False,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> FeatureStats:
    """Return what the extractor says of uint8 images (N, C, H, W), batch by batch.

    name      of the images, in messages and to `progress`
    file      write the features to it, and map them into memory from there
    logits    keep the logits
    processes share the work; each of them returns all of it

    Raise UserError where a feature is not finite.
    """
    moments, kept = Moments(), []
    batch = OF_INCEPTION if extractor.is_inception else BATCH

    def work(some: Tensor) -> tuple[Tensor, ...]:
        features, of_classes = extractor(some)
        return (features,) if of_classes is None else (features, of_classes)

    for features, *more in processes.map_in_order(images.split(batch), work):
        if not features.isfinite().all():
            raise UserError(
                f"{extractor.name} gives features that are not finite for {name} {moments.n:,} to "
                f"{moments.n + len(features) - 1:,}: they have no distance"
            )
        moments.add(features)
        kept += more if logits else []
        if file:
            file.write(features.numpy().data)
        if progress:
            progress(name, moments.n, len(images))
    mapped = None
    if file:
        file.flush()
        mapped = map_features(file, len(images))
    return FeatureStats(moments, mapped, torch.cat(kept) if kept else None)


@contextmanager
def feature_file(path: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a new file for features: `path`, or one in the cache that is gone when unused.

    Raise UserError where there is no room for them.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") if path else TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise UserError(
            f"the features could not be written in {folder} ({error}): make room there, or name "
            f"another folder in DDPM_CACHE"
        ) from None


def map_features(file: IO[bytes] | Path, n: int) -> Tensor:
    """Return the float32 features (n, D) in a file, which stay on disk until they are used."""
    return torch.from_numpy(np.memmap(file, np.float32, "c").reshape(n, -1))
