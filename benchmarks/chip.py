"""What the chip gives to training: how long a preset should take, and how fast steps are.

python benchmarks/chip.py predict cifar10-paper    anywhere: counted operations over a rate
python benchmarks/chip.py speed                    on the chip: ours and others, beside its best
"""

import importlib.util
import json
import math
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm import UserError, preset
from ddpm.checkpoint.checkpoint import build_net
from ddpm.config import DataInfo
from ddpm.utils.device import best_device, check_device

sys.path.insert(0, str(Path(__file__).parent))
from contestants import Machine
from peers import LIBRARIES, alone, trainee

SHAPES = {"cifar10": (3, 32), "celeba": (3, 64)}  # of named sets in colour: channels and side


# ---- predict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predict:
    """How long a preset should take: its counted operations over the rate that is assumed."""

    preset: tyro.conf.Positional[str]
    """One that learns images in colour."""
    tflops: float = 280.0
    """TFLOP/s of training: a share of what `speed` says of the chip."""


def predict(options: Predict) -> None:
    config = preset(options.preset)
    if config.data not in SHAPES:
        raise UserError(f"the preset {options.preset} is of {config.data}, which needs no GPU")
    channels, side = SHAPES[config.data]
    classes = tuple("0123456789") if config.labels and config.data == "cifar10" else ()
    with torch.device("meta"):  # counts without computing
        net = build_net(config, DataInfo(config.data, 1, channels, side, side, classes, ""))
        x, t = torch.ones(1, channels, side, side), torch.ones(1, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        out = net(x, t)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    once = forward.get_total_flops()
    flop = once + backward.get_total_flops()
    rate = options.tflops * 1e12 / flop
    batch = config.train.batch
    images = config.images or (config.steps or 0) * batch or 60 * (config.minutes or 0) * rate
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"{options.preset}: {parameters / 1e6:.1f} M parameters, {once / 1e9:.1f} GFLOP forward, "
        f"{flop / 1e9:.1f} GFLOP an image and step\n"
        f"predicted at {options.tflops:g} TFLOP/s: {rate:,.0f} images/s, "
        f"{1000 * batch / rate:.1f} ms a step of {batch}; {images / 1e6:.1f} M images, "
        f"{images / batch:,.0f} steps, {images / rate / 60:,.0f} minutes"
    )


# ---- speed -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """Training steps of the paper's network, ours and others', beside what the chip can do."""

    out: Path = Path("speed.json")
    libraries: tuple[str, ...] = LIBRARIES
    """Which to train; those that are not installed are left out."""
    network: Literal["paper", "small"] = "paper"
    """DDPM's for CIFAR-10, or one of about a million parameters."""
    batch: int = 128
    compiled: bool = True
    """Also compiled, which takes minutes."""
    seconds: float = 10.0
    """Measured for each row, after its warm-up."""
    device: str | None = None
    """cpu or cuda. By default the best that is there."""


def speed(options: Speed) -> None:
    device = options.device or best_device()
    check_device(device)
    peak = alone(product_tflops, device)
    about = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    print(f"{about}, torch {torch.__version__}: a bf16 product runs at {peak:.1f} TFLOP/s")
    rows: list[dict[str, Any]] = []
    flop: dict[str, float] = {}  # of an image and step
    for library, name, machine in entries(options, device):
        row: dict[str, Any] = {"library": library, "name": name}
        try:
            row |= alone(
                time_steps, library, options.network, options.batch, machine, options.seconds
            )
        except Exception as error:  # one that does not run must not lose the others' numbers
            row["error"] = f"{type(error).__name__}: {error}"[:500]
            print(f"{library}, {name}: {row['error']}", file=sys.stderr)
        else:
            images = options.batch / statistics.median(row["seconds"])
            if row["flop"]:
                flop[library] = row["flop"] / options.batch
            rate = images * flop.get(library, math.nan) / 1e12
            row |= {"images_per_second": images, "tflops": rate, "share": rate / peak}
        rows.append(row)
        result = {"device": about, "torch": torch.__version__, "network": options.network,
                  "batch": options.batch, "product_tflops": peak, "rows": rows}  # fmt: skip
        options.out.write_text(json.dumps(result, indent=1))
    print(table(rows))


def entries(options: Speed, device: str) -> list[tuple[str, str, Machine]]:
    """(library, name, machine): each library first uncompiled, which counts its operations."""
    rows = []
    for library in options.libraries:
        if library != "ours" and not importlib.util.find_spec(library.replace("-", "_")):
            print(f"{library} is not installed, and left out", file=sys.stderr)
            continue
        if library == "ours":
            rows.append((library, "float32", Machine(device)))
        rows.append((library, "bf16", Machine(device, "bf16")))
        if options.compiled:
            rows.append((library, "bf16, compiled", Machine(device, "bf16", "default")))
        if options.compiled and library == "ours" and device != "cpu":
            graphs = Machine(device, "bf16", "reduce-overhead")
            rows.append((library, "bf16, compiled, CUDA graphs", graphs))
    return rows


def time_steps(
    library: str, network: str, batch: int, machine: Machine, seconds: float
) -> dict[str, Any]:
    """Seconds of a step, each the mean of a row of steps between two waits for the device."""
    torch.manual_seed(0)
    job = trainee(library, network, machine)
    x0 = (torch.rand(batch, 3, 32, 32) * 2 - 1).to(machine.device)
    y = torch.zeros(batch, dtype=torch.long, device=machine.device)

    def steps(n: int) -> float:
        wait(machine.device)
        begun = time.perf_counter()
        for _ in range(n):
            job.step(x0, y, 0.5)
        wait(machine.device)
        return (time.perf_counter() - begun) / n

    flop = None
    if machine.mode is None:
        # The counter does not know the CPU's own attention.
        plain = sdpa_kernel(SDPBackend.MATH) if machine.device == "cpu" else nullcontext()
        with plain, FlopCounterMode(display=False) as counter:
            first = steps(1)
        flop = counter.get_total_flops()
    else:
        first = steps(1)  # which compiles
    steps(3)
    n = max(1, round(seconds / 10 / steps(3)))
    return {
        "seconds": [steps(n) for _ in range(10)], "first_step": first, "flop": flop,
        "parameters": job.parameters, "gib": peak_memory(machine.device) / 2**30,
    }  # fmt: skip


def product_tflops(device: str) -> float:
    """What the chip can do: the product of two large matrices of bf16, in TFLOP/s."""
    side, n = (512, 2) if device == "cpu" else (8192, 20)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(10):
        wait(device)
        begun = time.perf_counter()
        for _ in range(n):
            a @ b
        wait(device)
        rates.append(n * 2 * side**3 / (time.perf_counter() - begun) / 1e12)
    return statistics.median(rates)


def wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def peak_memory(device: str) -> int:
    """Bytes: of the device, as torch took them; on a CPU those of the whole process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | | parameters | images/s | ms a step | TFLOP/s | of a product | memory | first step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in (r for r in rows if "error" not in r):
        lines.append(
            f"| {r['library']} | {r['name']} | {r['parameters'] / 1e6:.2f} M | "
            f"{r['images_per_second']:,.0f} | {1000 * statistics.median(r['seconds']):.1f} | "
            f"{r['tflops']:.2f} | {r['share']:.1%} | {r['gib']:.2f} GiB | {r['first_step']:.1f} s |"
        )
    return "\n".join(lines)


# ---- the command line ------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    command = tyro.cli(
        Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Predict, tyro.conf.subcommand("predict")],
        description=__doc__,
        args=argv,
    )
    try:
        speed(command) if isinstance(command, Speed) else predict(command)
    except UserError as error:
        print(f"chip: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
