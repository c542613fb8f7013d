"""Quality against minutes, drawn from what `peers.py digits` measured.

Distances of few digits are left out: they cannot be held against those of many.

python benchmarks/plot.py benchmarks/digits.json --out docs/minutes.png
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro


@dataclass
class Options:
    scores: tyro.conf.Positional[Path]
    out: Path = Path("docs/minutes.png")


def main(options: Options) -> None:
    rows = json.loads(options.scores.read_text())
    most = max(row["n"] for row in rows)
    rows = [row for row in rows if row["n"] == most]
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for k, library in enumerate(dict.fromkeys(row["library"] for row in rows)):
        own = [row for row in rows if row["library"] == library]
        axes.plot(
            [row["minutes"] for row in own], [row["distance"] / row["floor"] for row in own],
            marker="osD^v"[k % 5], color=f"C{k}", label=library,
        )  # fmt: skip
    axes.axhline(1, color="gray", linestyle=":", label="real digits")
    axes.set(yscale="log", xlabel="minutes of training on two CPU cores", ylim=(0.8, None))
    axes.set_ylabel("distance from MNIST, in floors")
    axes.set_xlim(0, None)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=130)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
