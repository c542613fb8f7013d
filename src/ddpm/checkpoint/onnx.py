"""Networks as ONNX files, for programs without Python. Needs onnx, onnxscript and onnxruntime."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils.errors import UserError
from ..utils.files import atomic_write
from .checkpoint import Checkpoint, without_guide
from .memory import require_memory

OPSET = 18
TOLERANCE = 1e-4  # between torch's outputs and onnxruntime's, absolute and relative
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write the network as an ONNX file, of any batch, that has been run and compared.

    Inputs: x_t, float (B, C, H, W); t, int64 (B,), 1 … T (for the target F, c_in x and c_noise,
    float); and with classes their labels y, int64 (B,), the last for no class. The output is what
    the network predicts. The metadata "ddpm" are the header of our checkpoints: classes, schedule,
    target and settings of the sampler.

    Raise UserError where a library is missing, or onnxruntime computes something else.
    """
    require_memory(checkpoint.config.unet, checkpoint.data.shape, 2 * 3)  # torch, and onnxruntime
    require_libraries()
    import onnx

    c = without_guide(checkpoint)
    names = ["x_t", "t", *(["y"] if c.conditional else [])]
    batch = torch.export.Dim("batch", min=1)
    with atomic_write(path) as beside:
        with quiet():
            program = torch.onnx.export(
                c.net, example(c, 2), dynamo=True, opset_version=OPSET, input_names=names,
                output_names=["out"], dynamic_shapes=tuple({0: batch} for _ in names),
                verbose=False,
            )  # fmt: skip
        assert program is not None
        model = program.model_proto
        header = c.header
        onnx.helper.set_model_props(model, {"ddpm": json.dumps(asdict(header))})
        onnx.save(model, beside)
        compare(c, beside, names)


def require_libraries() -> None:
    """Raise UserError where one of the libraries is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(
            f'ONNX needs {" and ".join(missing)}: pip install "ddpm-from-scratch[onnx]"'
        )


def example(checkpoint: Checkpoint, n: int) -> tuple[Tensor, ...]:
    """Return inputs of the network, n of each: noise, times from 1 to T, and labels, ∅ too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *checkpoint.data.shape, generator=generator)
    t = torch.linspace(1, checkpoint.diffusion.T, n).long()
    if checkpoint.diffusion.target == "F":
        *_, t = checkpoint.diffusion.preconditioning(t, 1)
    y = torch.arange(n) % (len(checkpoint.data.classes) + 1)
    return (x, t, y) if checkpoint.conditional else (x, t)


@torch.inference_mode()
def compare(checkpoint: Checkpoint, path: Path, names: list[str]) -> None:
    """Raise UserError where onnxruntime's outputs are not those of torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for n in (1, 3):
        given = example(checkpoint, n)
        (theirs,) = session.run(None, {k: v.numpy() for k, v in zip(names, given, strict=True)})
        ours = checkpoint.net(*given)
        if not torch.allclose(ours, torch.from_numpy(theirs), rtol=TOLERANCE, atol=TOLERANCE):
            error = float((ours - torch.from_numpy(theirs)).abs().max())
            raise UserError(
                f"onnxruntime {onnxruntime.__version__} computes something else than torch "
                f"{torch.__version__}, by up to {error:.1g}: try other versions of these"
            )


@contextmanager
def quiet() -> Iterator[Any]:
    """Keep the exporter's notes to those who write exporters from the person who asked."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
