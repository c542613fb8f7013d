"""What lies in a run's folder: one answer for all that read it or write to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ..utils.errors import UserError
from ..utils.files import is_temporary, require_writable
from .tensors import is_whole

Contents = Literal["nothing", "begun", "saved", "other"]


@dataclass(frozen=True)
class RunDir:
    """The names of the files in a run's folder, whether they are there or not."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def held_out(self) -> Path:
        return self.path / "held-out.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def model(self) -> Path:
        """The averaged weights, for use."""
        return self.path / "model.safetensors"

    @property
    def guide(self) -> Path:
        """The averaged weights early in the run, for autoguidance."""
        return self.path / "guide.safetensors"

    @property
    def state(self) -> Path:
        """All that the run needs to be resumed."""
        return self.path / "state" / "state.safetensors"

    @property
    def previous_state(self) -> Path:
        return self.path / "state" / "state-before.safetensors"

    @property
    def lock(self) -> Path:
        return self.path / "state" / "lock"

    def bad_batch(self, step: int, rank: int | None = None) -> Path:
        """The batch of a step that was skipped, or one process's part of it."""
        suffix = "" if rank is None else f"-{rank}"
        return self.path / "bad" / f"step-{step:07}{suffix}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training in this folder, until the block or the process
        ends. Raises UserError where another one is.

        On a disk that has no locks, as some on a network, it keeps nobody out.
        """
        self.lock.parent.mkdir(exist_ok=True)
        lock = FileLock(self.lock, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is training in {self.path}: let it end, or stop it"
            ) from None
        except (OSError, NotImplementedError):
            pass
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True)
class RunContents:
    """What lies in a folder.

    kind     "nothing"; a run that has "begun" but has no checkpoint yet; a run that has "saved"
             one; or files of some "other" program
    states   what the run can be resumed from, newest first
    model    its weights for use, None where there are none; they may lie in any folder
    guide    its early weights for autoguidance, None where there are none
    damaged  those of these files that are cut short or not safetensors files at all
    """

    dir: RunDir
    kind: Contents
    states: tuple[Path, ...] = ()
    model: Path | None = None
    guide: Path | None = None
    damaged: tuple[Path, ...] = ()

    @property
    def is_run(self) -> bool:
        return self.kind in ("begun", "saved")


def inspect_run(path: str | Path) -> RunContents:
    """Return what lies in the folder at `path`."""
    run = RunDir(Path(path))
    states = tuple(file for file in (run.state, run.previous_state) if file.is_file())
    model = run.model if run.model.is_file() else None
    guide = run.guide if run.guide.is_file() else None
    files = [*states, *(file for file in (model, guide) if file)]
    damaged = tuple(file for file in files if not is_whole(file))
    kind: Contents
    if run.config.is_file():
        kind = "saved" if states or model else "begun"
    else:
        kind = "nothing" if is_unused(run) else "other"
    return RunContents(run, kind, states, model, guide, damaged)


def find_runs(folder: str | Path) -> list[RunDir]:
    """Return the runs in a folder, or the folder itself where it is a run's, by name."""
    folder = Path(folder).resolve()
    found = sorted(p.parent for p in (*folder.glob("config.toml"), *folder.glob("*/config.toml")))
    return [RunDir(path) for path in found]


def is_unused(run: RunDir) -> bool:
    """Return whether nothing is there but what a run leaves that was killed before it began."""
    if not run.path.is_dir():
        return not run.path.exists()
    files = [p for p in run.path.iterdir() if p != run.lock.parent]
    if run.lock.parent.is_dir():
        files += [p for p in run.lock.parent.iterdir() if p != run.lock]
    return all(is_temporary(p) for p in files)


def check_trainable(path: str | Path, resume: bool) -> RunContents:
    """Refuse, before any work is done, a folder that is in use or cannot be written."""
    run = inspect_run(path)
    if resume and not run.is_run:
        raise UserError(f"there is no run to go on with in {path}")
    if not resume and run.kind != "nothing":
        raise UserError(f"{path} is in use: go on with it by --resume, or give another --out")
    require_writable(run.dir.path)
    return run
