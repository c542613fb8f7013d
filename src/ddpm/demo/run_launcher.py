"""Begin and stop a run from the page: one at a time, for some minutes, in a process of its own."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np

from ..checkpoint.run_dir import RunDir
from ..data.decode import decode_to_fit, open_image
from ..data.sources import is_downloaded
from ..utils.errors import UserError, plain, printable
from ..utils.files import free_name, make_folder
from .requests import StartRequest
from .uploads import MAX_BYTES, decode_data_uri, decoding

SETS = {
    "mnist5k": "5,000 digits", "mnist": "60,000 digits", "fashion-mnist": "60,000 clothes",
    "cifar10": "50,000 objects in colour",
}  # fmt: skip
SIDES = (28, 32, 64)  # of photos, as the page sends them
MIN_PHOTOS = 8
# How a run is told to save and end. Its process is in a group of its own: Ctrl-C in the server's
# terminal would be a first signal, and what `close` sends a second, which ends it unsaved.
STOP: int
OWN_GROUP: dict[str, Any]
if sys.platform == "win32":
    STOP, OWN_GROUP = (
        signal.CTRL_BREAK_EVENT,
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP},
    )
else:
    STOP, OWN_GROUP = signal.SIGTERM, {"start_new_session": True}


class RunLauncher:
    """The run that was begun from the page, if any. `allowed`: whether visitors may begin one."""

    def __init__(self, runs: Path, allowed: bool, root: str = "data"):
        self.runs, self.allowed, self.root = runs, allowed, Path(root)
        self.lock = Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.out: Path | None = None
        self.log: IO[bytes] | None = None
        self.stopping = False
        atexit.register(self.close)

    def sets(self) -> dict[str, str]:
        """Return the sets that are on this machine, each with what it is."""
        return {name: what for name, what in SETS.items() if is_downloaded(name, self.root)}

    def start(self, request: StartRequest) -> str:
        """Begin a run and return its name. Raise UserError where none may be begun, another one
        that was is training, or there are too few photos."""
        if not self.allowed:
            raise UserError(
                "runs can be begun where the page is open to its own machine alone, or asks for a "
                "password: start it so, or use ddpm train"
            )
        if not request.photos and request.data not in self.sets():
            raise UserError(f"there is no set {printable(request.data)!r} here: choose another one")
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                raise UserError("a run that was begun here is training: stop it, or let it end")
            make_folder(self.runs)
            out = free_name(self.runs / "from-the-page")
            data = request.data
            if request.photos:
                path = free_name(out.with_name(f"{out.name}-photos.npz"))  # other runs' are kept
                data = str(save_photos(request, path))
            minutes = f"{request.minutes:g}"
            words = ["train", "--data", data, "--minutes", minutes, "--out", str(out)]
            self.log = tempfile.TemporaryFile()  # noqa: SIM115, it is read once the run has ended
            threads = str(max(1, (os.cpu_count() or 2) // 2))  # the others are the page's
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ddpm", *words],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                env={**os.environ, "OMP_NUM_THREADS": threads}, **OWN_GROUP,
            )  # fmt: skip
            self.out, self.stopping = out, False
        return printable(out.name)

    def stop(self, name: str) -> None:
        """Have the run of that name save and end. Raise UserError where it was not begun here."""
        with self.lock:
            if self.out is None or printable(self.out.name) != name or self.process is None:
                raise UserError("this run was not begun here: stop it where it was, by Ctrl-C")
            self.signal_stop()

    def signal_stop(self) -> None:
        """Have the process save and end: once, as a second signal would end it at once."""
        if self.process is not None and self.process.poll() is None and not self.stopping:
            self.process.send_signal(STOP)
            self.stopping = True

    def begun(self) -> tuple[str, str]:
        """Return the name of the run that was begun here, and what it is doing, while its process
        lives or where it has failed before its first steps; ("", "") where there is none."""
        with self.lock:
            if self.out is None or self.process is None:
                return "", ""
            code, name = self.process.poll(), printable(self.out.name)
            if code is None:
                return name, "training"
            asked_to = code in (0, 130, -signal.SIGTERM) or RunDir(self.out).metrics.exists()
            return ("", "") if asked_to else (name, "stopped")

    def status(self, name: str) -> dict[str, object]:
        """Return whether the run of that name is one that the page can stop, and the last line of
        what it said where it has failed."""
        with self.lock:
            ours = self.out is not None and printable(self.out.name) == name
            if not ours or self.process is None or self.log is None:
                return {"ours": False, "failed": ""}
            code = self.process.poll()
            if not code or RunDir(self.out or Path()).metrics.exists():
                return {"ours": code is None, "failed": ""}
            return {"ours": False, "failed": self.last_line()}

    def last_line(self) -> str:
        """Return the last line of what the run said."""
        assert self.log is not None
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").split("\n")
        return plain(next((line for line in reversed(lines) if line.strip()), "it ended"), 300)

    def close(self) -> None:
        """Have the run save and end, as the server does."""
        self.signal_stop()


def save_photos(request: StartRequest, path: Path) -> Path:
    """Write the visitor's photos as an npz that `ddpm train` reads, and return its path. Raise
    UserError for too few, others than squares of SIDES, or labels for some of them alone."""
    n = len(request.photos)
    if n < MIN_PHOTOS:
        raise UserError(f"{n} photos are too few to learn from: choose {MIN_PHOTOS} or more")
    if request.labels and len(request.labels) != n:
        raise UserError("each photo has one class, or none has: choose them anew")
    files = [decode_data_uri(photo, MAX_BYTES) for photo in request.photos]
    with decoding("one of the photos cannot be read: choose them anew"):
        w, h = open_image(files[0]).image.size
        if w != h or w not in SIDES:
            raise UserError(f"photos are sent as squares of {SIDES} pixels: load the page anew")
        images = np.stack([decode_to_fit(file, "RGB", (w, h)) for file in files])
    classes = sorted(set(request.labels))
    arrays = {"images": images}
    if len(classes) > 1:
        arrays["labels"] = np.array([classes.index(label) for label in request.labels])
        arrays["classes"] = np.array(classes)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
