"""Ours against diffusers and denoising-diffusion-pytorch, on this machine, side by side.

    pip install -e '.[bench]'
    python benchmarks/peers.py speed  --out benchmarks/speed.json
    python benchmarks/peers.py digits --root data --out benchmarks/digits.json

speed    training images a second and peak memory, of the paper's CIFAR-10 network and of one of
         about a million parameters. Each is trained in a process of its own, for a few steps, in
         rounds that begin with another one each time; the medians of all steps count.
digits   every library learns MNIST for equal minutes, at its README's settings and at the best we
         found for it, then makes digits in at most 25 steps; these are scored by `ddpm evaluate`.
"""

import json
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from contestants import (
    CPU,
    Diffusers,
    DiffusersSettings,
    Lucidrains,
    LucidrainsSettings,
    Machine,
    Ours,
    Trainee,
)

PAPER = (128, 256, 256, 256)
SMALL = (32, 64, 64)


def alone(job: Any, *args: Any) -> Any:
    """Run a function in a fresh process, so that none inherits another's memory or threads."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(job, *args).result()


# ---- speed -----------------------------------------------------------------------------------


def trainee(library: str, network: str, machine: Machine = CPU) -> Trainee:
    """A library's network of the same size: three channels, 32x32, unconditional.

    diffusers builds the very same network; denoising-diffusion-pytorch one of nearly as many
    parameters, and of 0.91 (paper) and 0.89 (small) times the arithmetic.
    """
    paper = network == "paper"
    if library == "ours":
        return Ours(network, channels=3, classes=0, machine=machine)
    if library == "diffusers":
        return Diffusers(
            DiffusersSettings(PAPER if paper else SMALL, (1,), lr=2e-4, dropout=0.1, heads=None),
            channels=3, size=32, machine=machine,
        )  # fmt: skip
    dim, mults = (144, (1, 2, 2, 2)) if paper else (32, (1, 2, 2))  # which is nearest in size
    full = tuple(level == 1 for level in range(len(mults)))
    return Lucidrains(LucidrainsSettings(dim, mults, lr=2e-4, full_attention=full), 3, 32, machine)


def time_steps(library: str, network: str, batch: int, steps: int) -> dict[str, Any]:
    """Seconds of each step after the first, and what training added to the peak of memory."""
    import accelerate  # noqa: F401
    import denoising_diffusion_pytorch  # noqa: F401
    import diffusers
    from diffusers.training_utils import EMAModel  # noqa: F401

    import ddpm

    _ = ddpm.train, ddpm.UNet, diffusers.UNet2DModel, diffusers.DDIMScheduler
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    job = trainee(library, network)
    x0, y = torch.rand(batch, 3, 32, 32) * 2 - 1, torch.zeros(batch, dtype=torch.long)
    seconds = []
    for k in range(steps + 1):
        begun = time.perf_counter()
        job.step(x0, y, k / (steps + 1))
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds[1:], "parameters": job.parameters, "mib": (peak - before) / 1024}


@dataclass
class Speed:
    """Training images a second and peak memory."""

    out: Path = Path("speed.json")
    rounds: int = 2
    steps: int = 4
    """Timed steps a round; the small network takes five times as many."""


LIBRARIES = ("ours", "diffusers", "denoising-diffusion-pytorch")


def speed(options: Speed) -> None:
    rows = []
    for network, batch in (
        ("paper", 8),
        ("paper", 32),
        ("small", 8),
        ("small", 32),
        ("small", 128),
    ):
        found: dict[str, list[dict[str, Any]]] = {library: [] for library in LIBRARIES}
        steps = options.steps * (1 if network == "paper" else 5)
        for k in range(options.rounds):
            for library in LIBRARIES[k % 3 :] + LIBRARIES[: k % 3]:
                found[library].append(alone(time_steps, library, network, batch, steps))
        for library, runs in found.items():
            seconds = statistics.median(s for run in runs for s in run["seconds"])
            row = {"network": network, "batch": batch, "library": library,
                   "parameters": runs[0]["parameters"], "images_per_second": batch / seconds,
                   "mib": statistics.median(run["mib"] for run in runs)}  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
        options.out.write_text(json.dumps(rows, indent=1))
    print("\n| network | batch | library | parameters | images/s | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in rows:
        print(
            f"| {r['network']} | {r['batch']} | {r['library']} | {r['parameters'] / 1e6:.2f} M | "
            f"{r['images_per_second']:.2f} | {r['mib']:,.0f} MiB |"
        )


# ---- digits ----------------------------------------------------------------------------------


@dataclass
class Digits:
    """Distance from MNIST after equal minutes."""

    root: str = "data"
    """Where MNIST lies."""
    out: Path = Path("digits.json")
    runs: Path = Path("runs/benchmark")
    """Where our runs go."""
    minutes: tuple[float, ...] = (2.0, 5.0)
    """Our training times; the peers learn for the last of them."""
    all_minutes: bool = False
    """Let the tuned peers learn for each of the times too."""
    n: int = 2000
    """Digits in a score; a README's network is too slow for more than `few`, and its distance is
    only to be held against the floor of as many."""
    few: int = 100
    only: tuple[str, ...] = ()
    """Names of contestants; all of them if none is named."""


@dataclass(frozen=True)
class Entry:
    name: str
    kind: Any
    settings: Any
    batch: int
    size: int
    readme: bool = False


ENTRIES = (
    Entry("ours", None, None, 0, 28),
    Entry(
        "diffusers, tuned", Diffusers,
        DiffusersSettings(
            (16, 32, 64), (2,), lr=2e-3, classes=10, prediction="v_prediction", groups=8,
            schedule="squaredcos_cap_v2", guidance=1.5, steps=12, decay=True, channels_last=True,
            spacing="trailing",
        ), 16, 28,
    ),
    Entry(
        "denoising-diffusion-pytorch, tuned", Lucidrains,
        LucidrainsSettings(
            16, (1, 2), lr=2e-3, classes=10, schedule="cosine", min_snr=True, guidance=1.5,
            steps=12, decay=True, channels_last=True, ema=0.999, ema_every=1,
        ), 16, 28,
    ),
    Entry(
        "diffusers, as documented", Diffusers,
        DiffusersSettings((128, 128, 256, 256, 512, 512), (4,), lr=1e-4), 16, 32, True,
    ),
    Entry(
        "denoising-diffusion-pytorch, as documented", Lucidrains,
        LucidrainsSettings(64, (1, 2, 4, 8), lr=8e-5, accumulate=2), 64, 32, True,
    ),
)  # fmt: skip


def learn(
    entry: Entry, minutes: float, n: int, root: str, runs: Path, threads: int
) -> dict[str, Any]:
    """Train one contestant for so many minutes, sample from it, and say what came of it."""
    from ddpm import load_images, to_float

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    y = torch.arange(n) % 10
    if entry.kind is None:
        from ddpm import generate, load, preset, train
        from ddpm.generation.generate import network_evaluations
        from ddpm.utils.files import free_name

        config = replace(preset("mnist"), root=root, minutes=minutes)
        result = train(config, free_name(runs / f"ours-{minutes:g}"), device="cpu")
        checkpoint = load(result.out)
        begun = time.perf_counter()
        images = generate(checkpoint, n).images
        return {
            "images": result.images_seen, "samples": images, "labels": y,
            "sampling_seconds": time.perf_counter() - begun,
            "parameters": sum(p.numel() for p in checkpoint.net.parameters()),
            "nfe": network_evaluations(config.sample, checkpoint.diffusion, True),
        }  # fmt: skip
    data = load_images("mnist", root=root)
    assert data.labels is not None
    job = entry.kind(entry.settings, 1, entry.size)
    pad = (entry.size - 28) // 2
    begun, seen = time.monotonic(), 0
    while (progress := (time.monotonic() - begun) / 60 / minutes) < 1:
        index = torch.randint(0, len(data), (entry.batch,))
        x0 = torch.nn.functional.pad(to_float(data.images[index]), (pad,) * 4, value=-1.0)
        job.step(x0, data.labels[index], progress)
        seen += entry.batch
    begun = time.perf_counter()
    samples = torch.cat([job.sample(part) for part in y.split(250)])
    seconds = time.perf_counter() - begun
    samples = samples[..., pad : pad + 28, pad : pad + 28].contiguous()
    conditional = entry.settings.classes > 0
    return {
        "images": seen, "samples": samples, "labels": y if conditional else None,
        "sampling_seconds": seconds, "parameters": job.parameters,
        "nfe": entry.settings.steps * (2 if conditional else 1),
    }  # fmt: skip


def digits(options: Digits) -> None:
    from ddpm import Samples, evaluate, grid
    from ddpm.evaluation.classifiers import DigitNet
    from ddpm.evaluation.reference import load_reference

    reference = load_reference("mnist", root=options.root)
    rows = []
    for minutes in options.minutes:
        for entry in ENTRIES:
            last = minutes == options.minutes[-1]
            if (options.only and entry.name not in options.only) or (
                entry.kind and not last and (entry.readme or not options.all_minutes)
            ):
                continue
            n = options.few if entry.readme else options.n
            done = alone(
                learn, entry, minutes, n, options.root, options.runs, torch.get_num_threads()
            )
            samples = Samples(done["samples"], done["labels"], DigitNet.CLASSES)
            report = evaluate(samples, data=reference, device="cpu")
            settings = asdict(entry.settings) if entry.settings else "preset mnist"
            rows.append({
                "library": entry.name, "minutes": minutes, "parameters": done["parameters"],
                "images": done["images"], "n": n, "nfe": done["nfe"], "distance": report.distance,
                "floor": report.floor, "as_asked": report.class_accuracy,
                "sampling_ms": 1000 * done["sampling_seconds"] / n, "settings": settings,
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
            options.out.write_text(json.dumps(rows, indent=1))
            name = "".join(c if c.isalnum() else "-" for c in f"{entry.name}-{minutes:g}")
            grid(done["samples"][:100], 10).save(options.out.with_name(f"{name}.png"))
    print(
        "\n| library | minutes | parameters | images | NFE | n | distance / floor of n | "
        "as asked | ms an image |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for r in rows:
        asked = "" if r["as_asked"] is None else f"{r['as_asked']:.1%}"
        print(
            f"| {r['library']} | {r['minutes']:g} | {r['parameters'] / 1e6:.2f} M | "
            f"{r['images']:,} | {r['nfe']} | {r['n']:,} | {r['distance'] / r['floor']:.1f} | "
            f"{asked} | {r['sampling_ms']:.1f} |"
        )


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Digits, tyro.conf.subcommand("digits")],
        description=__doc__,
    )
    speed(command) if isinstance(command, Speed) else digits(command)
