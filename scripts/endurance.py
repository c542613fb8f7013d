"""Does training stay as small as it began? A very small network takes as many steps as it can.

    python scripts/endurance.py --minutes 20 --out runs/endurance

Everything that happens in a long run happens often: lines of the log, checkpoints, grids, held-out
losses, epochs. Prints the resident memory of the process as the steps go by.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

SMALL = [
    "--data", "mnist5k", "--unet.channels", "4", "--unet.mults", "1", "--unet.blocks", "1",
    "--unet.attention", "--unet.groups", "2", "--unet.patch", "7", "--train.batch", "2",
    "--train.log-every", "100", "--train.save-minutes", "0.1", "--train.sample-minutes", "0.5",
    "--sample.steps", "2", "--device", "cpu",
]  # fmt: skip


@dataclass
class Options:
    minutes: float = 20.0
    out: Path = Path("runs/endurance")
    rows: int = 20
    """Lines of the table."""


def resident(pid: int) -> float:
    """MB in memory."""
    return psutil.Process(pid).memory_info().rss / 2**20


def steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def main(options: Options) -> None:
    words = [*SMALL, "--minutes", str(options.minutes), "--out", str(options.out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm", "train", *words], stderr=subprocess.DEVNULL
    )
    print("| minutes | steps | resident memory, MB |\n| --- | --- | --- |")
    start = time.monotonic()
    for i in range(1, options.rows + 1):
        time.sleep(max(0.0, start + 60 * options.minutes * i / options.rows - time.monotonic()))
        if process.poll() is not None:
            break
        minutes = (time.monotonic() - start) / 60
        print(
            f"| {minutes:.1f} | {steps(options.out):,} | {resident(process.pid):.0f} |", flush=True
        )
    process.wait()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
