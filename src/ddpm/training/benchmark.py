"""What training costs on this machine, measured over a few steps."""

import statistics
import time
from dataclasses import dataclass, replace

import psutil
import torch
from accelerate import Accelerator

from ..checkpoint.checkpoint import build, build_loss
from ..config import Config
from ..core.ema import EMA
from ..data.batches import Batches
from ..data.dataset import ImageDataset
from ..utils.device import resolve_device, to_device
from ..utils.errors import counted
from .augment import augment_dim
from .optimizers import build_optimizer
from .step import train_step
from .train import make_accelerator, with_precision

WARM_UP = 2  # steps that are not timed
LONG = 4.0  # seconds after which two timed steps are enough


@dataclass(frozen=True)
class Cost:
    """What training costs on this machine, from a few steps: images a second, and memory in MB of
    the whole process (CPU) or of the device."""

    rate: float
    memory: float
    parameters: int


def measure_cost(
    config: Config, images: ImageDataset, device: str | None = None, steps: int = 6
) -> Cost:
    """Take a few steps of the real training and time them: fewer where they take long."""
    config = with_precision(config, resolve_device(device))
    accelerator: Accelerator = make_accelerator(config, device)
    raw, diffusion = build(config, images.info, augment_dim(config.train))
    to_device(raw, accelerator.device)
    diffusion = diffusion.to(accelerator.device)
    ema = EMA(raw, config.train.ema)
    net, optimizer = accelerator.prepare(raw, build_optimizer(raw, config.train))
    loss, null = build_loss(config, diffusion), len(images.classes)
    batches = Batches(images, config.train.batch, config.seed, config.flip, accelerator.device)
    process = psutil.Process()
    seconds, memory = [], []
    for k in range(WARM_UP + steps):
        begun = time.perf_counter()
        x0, y = batches(k)
        value, _ = train_step(accelerator, net, loss, optimizer, null, x0, y, 0.0, config.train)
        ema.update(raw)
        value.item()  # wait for the device
        seconds.append(time.perf_counter() - begun)
        memory.append(process.memory_info().rss)
        if k >= WARM_UP + 1 and sum(seconds) > LONG:
            break
    most = max(memory)
    if accelerator.device.type == "cuda":
        most = torch.cuda.max_memory_allocated()
    elif accelerator.device.type == "xpu":
        most = torch.xpu.max_memory_allocated()
    elif accelerator.device.type == "mps":
        most = torch.mps.driver_allocated_memory()
    rate = config.train.batch / statistics.median(seconds[WARM_UP:])
    return Cost(rate, most / 2**20, sum(p.numel() for p in raw.parameters()))


def describe_cost(config: Config, images: ImageDataset, device: str | None = None) -> list[str]:
    """Return lines on memory, speed, and what the config's budget comes to."""
    config = replace(config, train=replace(config.train, compile=False))
    found = measure_cost(config, images, device)
    n, seconds = len(images), config.budget.time_left(0, 0.0, found.rate)
    total = round(seconds * found.rate)
    return [
        f"network: {found.parameters / 1e6:.1f} M parameters; {found.rate:,.0f} images/s and "
        f"{found.memory:,.0f} MB on {resolve_device(device)}",
        f"its budget: {counted(round(seconds / 60), 'minute')}, {counted(total, 'image')}, each "
        f"{total / n:,.1f} times",
    ]
