"""Train on a machine that has PyTorch and a GPU, but no network and no installation of ours.

    python scripts/gpu.py predict cifar10-paper       anywhere: how long a preset should take
    python scripts/gpu.py pack set.zip                here: what must travel, in parts
    python scripts/gpu.py join pack/set.zip.json      there: the parts are one file again
    python scripts/gpu.py speed                       there: what the chip gives
    python scripts/gpu.py train RUN -- cifar10-paper  there: for 9 minutes; repeat to go on
    python scripts/gpu.py halve RUN net.safetensors   there: weights of half the size
    python scripts/gpu.py split net.safetensors OUT   there: in parts that can be sent back

docs/gpu.md has the whole way, in order.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm import UserError, load, preset, save
from ddpm.checkpoint.checkpoint import build_net
from ddpm.config import DataInfo
from ddpm.utils.device import best_device, check_device
from ddpm.utils.files import atomic_write, require_writable

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from contestants import Machine  # noqa: E402
from peers import LIBRARIES, alone, trainee  # noqa: E402

PYTHON = "3.12"  # of the other machine, which is x86-64 Linux
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
THERE = (  # what an image for training on CUDA brings along
    "accelerate", "einops", "filelock", "huggingface-hub", "joblib", "matplotlib", "numpy",
    "packaging", "pandas", "pillow", "regex", "requests", "safetensors", "scikit-learn", "scipy",
    "torch", "torchvision", "tqdm",
)  # fmt: skip
SHAPES = {"cifar10": (3, 32), "celeba": (3, 64)}  # of named sets in colour: channels and side


# ---- pack, split and join --------------------------------------------------------------------


@dataclass(frozen=True)
class Pack:
    """Gather what must travel: wheels of the packages that are not there, and data in parts."""

    data: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files of images: .zip or .npz."""
    out: Path = Path("pack")
    """Folder of the parts and of wheels/."""
    mb: float = 50.0
    """Largest part, in millions of bytes: the wheels and the code travel beside it."""


@dataclass(frozen=True)
class Split:
    """Cut a file into parts, and write a manifest with their SHA-256 beside them."""

    file: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    """Folder of the parts."""
    mb: float = 16.0
    """Largest part, in millions of bytes."""


@dataclass(frozen=True)
class Join:
    """Put the parts of a file together again, each checked against its SHA-256."""

    manifest: tyro.conf.Positional[Path]
    """NAME.json, with the parts beside it."""
    out: tyro.conf.Positional[Path | None] = None
    """The file; by default NAME, beside the parts."""


def pack(options: Pack) -> None:
    wheels = options.out / "wheels"
    require_writable(wheels)
    fetch(missing(), wheels)
    parts = [part for file in options.data for part in split(file, options.out, options.mb)]
    for path in (*sorted(wheels.iterdir()), *parts):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")


def missing() -> list[str]:
    """name==version, as installed here, of all that training, scores and comparisons need and that
    is not THERE."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + extras["eval"] + extras["bench"]
    where = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    found: dict[str, str] = {}
    while asked:
        need = Requirement(asked.pop())
        name = canonicalize_name(need.name)
        if name in found or name in THERE or (need.marker and not need.marker.evaluate(where)):
            continue
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"{name} is not installed here: pip install -e '.[eval,bench]'"
            ) from None
        asked += importlib.metadata.requires(name) or []
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def fetch(names: list[str], folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    pip += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    pip += [f"--platform={name}_x86_64" for name in PLATFORMS]
    if subprocess.run([*pip, *names]).returncode:
        raise UserError("pip could not fetch the wheels: see its message above")


def split(file: Path, out: Path, mb: float) -> list[Path]:
    """Parts NAME.000, NAME.001 … of at most so many millions of bytes, and NAME.json."""
    if mb <= 0 or not file.is_file():
        raise UserError(f"{file} cannot be cut into parts of {mb:g} MB: is it a file?")
    require_writable(out)
    parts: list[Path] = []
    rows = []
    with file.open("rb") as source:
        while data := source.read(int(1e6 * mb)):
            parts.append(out / f"{file.name}.{len(parts):03}")
            parts[-1].write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            rows.append({"part": parts[-1].name, "bytes": len(data), "sha256": digest})
    manifest = out / f"{file.name}.json"
    manifest.write_text(json.dumps({"file": file.name, "parts": rows}, indent=1))
    return [*parts, manifest]


def join(manifest: Path, out: Path | None = None) -> Path:
    """The file whose parts lie beside their manifest. Raises UserError, which names the part, where
    one is missing or damaged; then nothing is written."""
    folder = manifest.parent
    try:
        about = json.loads(manifest.read_text())
        out = out or folder / Path(about["file"]).name
        rows = [(folder / Path(row["part"]).name, row["sha256"]) for row in about["parts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest} is not a manifest of parts: {error}") from None
    require_writable(out.parent)
    with atomic_write(out) as beside, beside.open("wb") as file:
        for i, (part, digest) in enumerate(rows, 1):
            if not part.is_file():
                raise UserError(f"part {i} of {len(rows)}, {part}, is missing: send it")
            data = part.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise UserError(f"part {i} of {len(rows)}, {part}, is damaged: send it again")
            file.write(data)
    return out


# ---- train -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Train:
    """Train for some minutes of a run's budget; the same command again goes on with the run.

    What stands after -- goes to `ddpm train` as the run begins: a preset and its options, with the
    budget of the whole run. After that the run has its own settings.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    minutes: float = 9.0
    """Of this command: less than the machine allows, as the run is saved after them."""
    out: Path | None = None
    """Folder for the log, the settings and the last grids of samples."""


@dataclass(frozen=True)
class Halve:
    """Copy a run's averaged weights, rounded to half precision: half the size, all that sampling
    needs."""

    run: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]


def train(options: Train, words: list[str]) -> int:
    """The exit code: 0 if the run has come to its end, or to the end of this command's minutes."""
    from ddpm.cli.main import main as ddpm

    goes_on = (options.run / "config.toml").exists()
    alarm = threading.Timer(60 * options.minutes, os.kill, (os.getpid(), signal.SIGINT))
    alarm.daemon = True
    alarm.start()  # as Ctrl-C does, it has the run saved and ended
    try:
        code = ddpm(["train", *(["--resume"] if goes_on else words), "--out", str(options.run)])
    finally:
        over = not alarm.is_alive()
        alarm.cancel()
    if options.out:
        require_writable(options.out)
        grids = sorted(options.run.glob("samples/*.png"))[-2:]
        for path in (*options.run.glob("*.toml"), *options.run.glob("*.jsonl"), *grids):
            shutil.copy(path, options.out)
    if code == 130 and over:
        print(f"{options.minutes:g} minutes are over: the same command goes on")
        return 0
    return code


def halve(options: Halve) -> None:
    c = load(options.run)
    require_writable(options.out.parent)
    save(options.out, c.net.half(), c.config, c.data, c.step, c.images_seen)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {c.images_seen:,} images")


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
    cut = argv.index("--") if "--" in argv else len(argv)
    command = tyro.cli(
        Annotated[Pack, tyro.conf.subcommand("pack")]
        | Annotated[Split, tyro.conf.subcommand("split")]
        | Annotated[Join, tyro.conf.subcommand("join")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Halve, tyro.conf.subcommand("halve")]
        | Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Predict, tyro.conf.subcommand("predict")],
        description=__doc__,
        args=argv[:cut],
    )
    try:
        match command:
            case Train():
                return train(command, argv[cut + 1 :])
            case Pack():
                pack(command)
            case Split():
                for path in split(command.file, command.out, command.mb):
                    print(path)
            case Join():
                print(join(command.manifest, command.out))
            case Halve():
                halve(command)
            case Speed():
                speed(command)
            case Predict():
                predict(command)
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
