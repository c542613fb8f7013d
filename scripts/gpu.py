"""Train on a machine that has PyTorch and a GPU, but no network and no installation of ours.

    python scripts/gpu.py pack set.zip                here: what must travel, in parts
    python scripts/gpu.py join pack/set.zip.json      there: the parts are one file again
    python scripts/gpu.py train RUN -- cifar10-paper  there: for 9 minutes; repeat to go on
    python scripts/gpu.py halve RUN net.safetensors   there: weights of half the size
    python scripts/gpu.py split net.safetensors OUT   there: in parts that can be sent back

docs/gpu.md has the whole way, in order.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import tyro
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tyro.conf import Positional

from ddpm import UserError, load, save
from ddpm.checkpoint.run_dir import inspect_run
from ddpm.cli.main import main as ddpm
from ddpm.utils.files import atomic_write, require_writable

PYTHON = "3.12"  # of the other machine, which is x86-64 Linux
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
THERE = (  # what an image for training on CUDA brings along
    "accelerate", "einops", "filelock", "huggingface-hub", "joblib", "matplotlib", "numpy",
    "packaging", "pandas", "pillow", "psutil", "regex", "requests", "safetensors", "scikit-learn",
    "scipy", "torch", "torchvision", "tqdm",
)  # fmt: skip


def pack(data: Positional[tuple[Path, ...]] = (), out: Path = Path("pack"), mb: float = 50) -> None:
    """Gather what must travel: wheels of the packages that are not there, and data in parts.

    Args:
        data: Files of images: .zip or .npz.
        out: Folder of the parts and of wheels/.
        mb: Largest part, in millions of bytes: the wheels and the code travel beside it.
    """
    wheels = out / "wheels"
    require_writable(wheels)
    fetch(missing(), wheels)
    parts = [part for file in data for part in cut(file, out, mb)]
    for path in (*sorted(wheels.iterdir()), *parts):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")


def missing() -> list[str]:
    """Return name==version, as installed here, of all that training, scores and comparisons need
    and that is not THERE."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
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


def split(file: Positional[Path], out: Positional[Path], mb: float = 16) -> None:
    """Cut a file into parts, and write a manifest with their SHA-256 beside them.

    Args:
        file: What to cut.
        out: Folder of the parts.
        mb: Largest part, in millions of bytes.
    """
    for path in cut(file, out, mb):
        print(path)


def cut(file: Path, out: Path, mb: float) -> list[Path]:
    """Write parts NAME.000, NAME.001 … of at most so many millions of bytes, and NAME.json."""
    if mb <= 0 or not file.is_file():
        raise UserError(f"{file} cannot be cut into parts of {mb:g} MB: is it a file?")
    require_writable(out)
    parts: list[Path] = []
    rows = []
    with file.open("rb") as source:
        while data := source.read(int(1e6 * mb)):
            parts.append(out / f"{file.name}.{len(parts):03}")
            parts[-1].write_bytes(data)
            rows.append({"part": parts[-1].name, "sha256": hashlib.sha256(data).hexdigest()})
    manifest = out / f"{file.name}.json"
    manifest.write_text(json.dumps({"file": file.name, "parts": rows}, indent=1))
    return [*parts, manifest]


def join(manifest: Positional[Path], out: Positional[Path | None] = None) -> None:
    """Put the parts of a file together again, each checked against its SHA-256.

    Args:
        manifest: NAME.json, with the parts beside it.
        out: The file; by default NAME, beside the parts.
    """
    print(joined(manifest, out))


def joined(manifest: Path, out: Path | None = None) -> Path:
    """Write the file whose parts lie beside their manifest, and return its path.

    Raises UserError, which names the part, where one is missing or damaged; then nothing is
    written.
    """
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


def train(run: Positional[Path], minutes: float = 9, out: Path | None = None) -> None:
    """Train for some minutes of a run's budget; the same command again goes on with the run.

    What stands after -- goes to `ddpm train` as the run begins: a preset and its options, with the
    budget of the whole run. After that the run has its own settings.

    Args:
        run: Folder of the run.
        minutes: Of this command: less than the machine allows, as the run is saved after them.
        out: Folder for the log, the settings and the last grids of samples.
    """
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    alarm = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGINT))
    alarm.daemon = True
    alarm.start()  # as Ctrl-C does, it has the run saved and ended
    try:
        code = ddpm(
            ["train", *(["--resume"] if inspect_run(run).is_run else words), "--out", str(run)]
        )
    finally:
        over = not alarm.is_alive()
        alarm.cancel()
    if out:
        require_writable(out)
        grids = sorted(run.glob("samples/*.png"))[-2:]
        for path in (*run.glob("*.toml"), *run.glob("*.jsonl"), *grids):
            shutil.copy(path, out)
    if code == 130 and over:
        print(f"{minutes:g} minutes are over: the same command goes on")
    elif code:
        sys.exit(code)


def halve(run: Positional[Path], out: Positional[Path]) -> None:
    """Copy a run's averaged weights, rounded to half precision: all that sampling needs.

    Args:
        run: Folder of the run.
        out: The file, NAME.safetensors.
    """
    c = load(run)
    require_writable(out.parent)
    save(out, c.net.half(), c.config, c.data, c.step, c.images_seen)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {c.images_seen:,} images")


COMMANDS: dict[str, Callable[..., None]] = {
    "pack": pack,
    "split": split,
    "join": join,
    "train": train,
    "halve": halve,
}


def main() -> None:
    own = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, description=__doc__, args=own)
    except UserError as error:
        sys.exit(f"gpu: {error}")


if __name__ == "__main__":
    main()
