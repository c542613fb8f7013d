"""onnxruntime-web, which runs networks in browsers: from where the files of a page come."""

import base64
import hashlib
import json
import logging
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..data.cache import cache_folder
from ..utils.errors import UserError
from ..utils.files import atomic_write, make_folder

NAME, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = (  # what npm has written down of that version
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
SCRIPT, WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"  # the CPU's alone
MAX_FILE, MAX_SECONDS = 100_000_000, 900
WHAT_TO_DO = (
    f"give it by --runtime, as the unpacked npm package {NAME} {VERSION} or its .tgz, or install "
    f"npm, which fetches it"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Runtime:
    """The two files of onnxruntime-web that a page needs."""

    version: str
    script: bytes
    wasm: bytes


def read_runtime(given: str | Path | None = None) -> Runtime:
    """Return onnxruntime-web from an unpacked npm package, or its .tgz; by default from the cache,
    to which npm fetches it once.

    Raise UserError where it is none, or damaged, and where there is no npm or it fails.
    """
    path = Path(given) if given is not None else fetched()
    if path.is_dir():
        return unpacked(path, lambda name: (path / name).read_bytes())
    if not path.is_file():
        raise UserError(f"there is no {NAME} at {path}: {WHAT_TO_DO}")
    try:
        with tarfile.open(path) as package:
            return unpacked(path, lambda name: member(package, f"package/{name}"))
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path} is not an npm package ({error}): {WHAT_TO_DO}") from None


def unpacked(path: Path, read: Callable[[str], bytes]) -> Runtime:
    """Return the runtime whose files are read by their names in the package at `path`."""
    try:
        about = json.loads(read("package.json"))
        if about["name"] != NAME:
            raise UserError(f"{path} is the package {about['name']}: {WHAT_TO_DO}")
        return Runtime(str(about["version"]), read(SCRIPT), read(WASM))
    except (OSError, KeyError, ValueError, TypeError):
        raise UserError(f"{path} is not the whole package {NAME}: {WHAT_TO_DO}") from None


def member(package: tarfile.TarFile, name: str) -> bytes:
    """Return a file in an archive. Raise KeyError where it is none, or larger than any of ours."""
    info = package.getmember(name)
    file = package.extractfile(info) if info.isfile() and info.size <= MAX_FILE else None
    if file is None:
        raise KeyError(name)
    return file.read()


def fetched() -> Path:
    """Return the package in the cache; npm fetches it where it is missing or damaged."""
    path = cache_folder() / f"{NAME}-{VERSION}.tgz"
    if is_intact(path):
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page needs {NAME}, and npm is not installed: {WHAT_TO_DO}")
    logger.info(f"npm fetches {NAME} {VERSION}, 33 MB, once: it is kept in {path.parent}")
    with TemporaryDirectory() as folder:
        words = ["pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--pack-destination", folder]
        try:
            subprocess.run(
                [npm, *words], check=True, capture_output=True, stdin=subprocess.DEVNULL,
                timeout=MAX_SECONDS, cwd=folder,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            raise UserError(f"npm cannot fetch {NAME} ({reason(error)}): {WHAT_TO_DO}") from None
        package = Path(folder) / path.name
        if not is_intact(package):
            raise UserError(f"what npm fetched is not {NAME} {VERSION} as it was: {WHAT_TO_DO}")
        make_folder(path.parent)
        with atomic_write(path) as beside:
            shutil.copyfile(package, beside)
    return path


def reason(error: Exception) -> str:
    """Return in a line why npm failed: the first line of what it said, where it said something."""
    said = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").strip()
    return said.splitlines()[0] if said else str(error)


def is_intact(path: Path) -> bool:
    """Return whether there is a file with the SHA-512 of the version that is pinned."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}" == INTEGRITY
