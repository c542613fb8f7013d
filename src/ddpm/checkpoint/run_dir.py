"""What lies in a run's folder: one answer for all that read it or write to it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ..config import Config, read_toml
from ..utils.errors import UserError, did_you_mean
from ..utils.files import is_occupied, is_temporary, make_folder, require_writable
from .header import FOREIGN, PRETRAINED, WEIGHTS_FOLDER, is_whole

Contents = Literal["nothing", "begun", "saved", "other"]
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
# What a run leaves where it is killed while it writes, and safetensors under it.
LEFTOVERS = (
    ".tmp??????", ".part-*-config.toml", ".part-*-metrics.jsonl", ".part-*-held-out.jsonl",
    ".part-*-model.safetensors", ".part-*-guide.safetensors", ".part-*-best.safetensors",
    ".part-*-scores.jsonl", ".part-*-probe",
    "state/.tmp??????", "state/.part-*", "bad/.tmp??????", "bad/.part-*",
    "samples/.part-*-ema.png", "samples/.part-*-raw.png",
)  # fmt: skip


@dataclass(frozen=True)
class RunDir:
    """The names of the files in a run's folder, whether they are there or not."""

    path: Path
    held: list[os.stat_result] = field(default_factory=list, init=False, repr=False, compare=False)

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
    def scores(self) -> Path:
        return self.path / "scores.jsonl"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files whose lines have a step. That of scores is there if any were asked for."""
        return self.metrics, self.held_out, self.scores

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def model(self) -> Path:
        """The averaged weights, for use."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """The averaged weights that had the best score."""
        return self.path / "best.safetensors"

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
        ends, and remove what killed ones left half-written. Raise UserError where another one is.

        On a disk that has no locks, as some on a network, it keeps nobody out, and removes nothing.
        """
        make_folder(self.lock.parent)
        lock = FileLock(self.lock, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
            for path in (path for name in LEFTOVERS for path in self.path.glob(name)):
                path.unlink(missing_ok=True)
        except Timeout:
            raise UserError(
                f"another process is training in {self.path}: let it end, or stop it"
            ) from None
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            with self.lock.open("ab") as file:  # while it is open, no other file is taken for it
                self.held[:] = [os.fstat(file.fileno())]
                yield
        finally:
            self.held.clear()
            lock.release()

    def require_held(self) -> None:
        """Raise UserError where, since it was `locked`, another folder has taken this one's place,
        and OSError where there is none any more. To be asked before anything is written."""
        if self.held and not os.path.samestat(self.held[0], self.lock.stat()):
            raise UserError(
                f"{self.path} was removed or moved while this run trained in it, and another has "
                f"taken its place: nothing more is written there"
            )


@dataclass(frozen=True)
class RunContents:
    """What lies in a folder.

    kind     "nothing"; a run that has "begun" but has no checkpoint yet; a run that has "saved"
             one, or has learned anything; or files of some "other" program
    states   what the run can be resumed from, newest first
    learned  what shows that steps were taken: weights, lines of logs, samples
    model    its weights for use, None where there are none; they may lie in any folder
    guide    its early weights for autoguidance, None where there are none
    best     those with the best score, None where there are none
    damaged  those of these files that are cut short or not safetensors files at all
    """

    dir: RunDir
    kind: Contents
    states: tuple[Path, ...] = ()
    learned: tuple[Path, ...] = ()
    model: Path | None = None
    guide: Path | None = None
    best: Path | None = None
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
    best = run.best if run.best.is_file() else None
    weights = [file for file in (model, guide, best) if file]
    damaged = tuple(file for file in (*states, *weights) if not is_whole(file))
    others = (*weights, *run.logs, *run.samples.glob("[!.]*"))
    learned = tuple(file for file in others if file.is_file() and file.stat().st_size)
    kind: Contents
    if run.config.is_file() or states:  # which have the settings too
        kind = "saved" if states or learned else "begun"
    else:
        kind = "nothing" if is_unused(run) else "other"
    return RunContents(run, kind, states, learned, model, guide, best, damaged)


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


def check_trainable(path: str | Path, resume: bool, config: Config | None = None) -> RunContents:
    """Refuse, before any work is done, a folder that is in use or cannot be written, and one whose
    state is lost.

    A run that has learned nothing may be begun again: with `resume`, or with the same `config`.
    """
    run = inspect_run(path)
    if resume and (run.kind == "other" and not run.learned or not is_occupied(run.dir.path)):
        raise UserError(f"there is no run to resume in {path}")
    begun = run.kind == "begun" and (config is None or has_settings(run.dir, config))
    if not resume and run.kind != "nothing" and not begun:
        resumable = "go on with it by --resume, or " if run.is_run else ""
        raise UserError(f"{path} is in use: {resumable}give another --out")
    folder = run.dir.state.parent
    if not run.states and (run.learned or folder.is_symlink() and not folder.exists()):
        there = ", ".join(sorted({file.relative_to(path).parts[0] for file in run.learned}))
        raise UserError(
            f"the run in {path} cannot go on: {run.dir.state} is missing, and so is the one before "
            f"it; there are {there or 'no other files'}. Bring back {folder} (is its disk there?), "
            f"or begin another run from the weights: --init {run.model or 'WEIGHTS'}"
        )
    require_writable(run.dir.path)
    return run


def has_settings(run: RunDir, config: Config) -> bool:
    """Return whether these are the settings in a run's config.toml."""
    try:
        return read_toml(run.config) == config
    except UserError:
        return False


def is_diffusers(path: Path) -> bool:
    """Return whether this is a folder that diffusers wrote."""
    return any((path / name).is_file() for name in ("model_index.json", "config.json"))


def find_checkpoint(name: str | Path) -> Path:
    """Return the file of weights that a path, or the name of bundled weights as a str, means.

    Raise UserError where there is none, or it is of another program.
    """
    path = WEIGHTS_FOLDER / f"{name}.safetensors" if name in PRETRAINED else Path(name)
    if path.is_dir():
        run = inspect_run(path)
        if run.is_run and run.model is None:
            raise UserError(f"the run in {path} has written no checkpoint yet: wait for its first")
        path = run.model or run.dir.model
    if not path.is_file() and is_diffusers(Path(name)):
        raise UserError(f"{name} is a folder of diffusers: ddpm convert {name} x.safetensors")
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint at {path}; name a run's folder, a .safetensors file, or the "
            f"weights that come with ddpm: {', '.join(PRETRAINED)}"
            f"{did_you_mean(str(name), PRETRAINED)}"
        )
    if path.suffix.lower() in FOREIGN:
        raise UserError(f"{path} is a file of PyTorch's: ddpm convert {path} x.safetensors")
    return path
