"""Write docs/equations.md from the docstrings, so that it cannot drift from the code.

python scripts/equations.py [--check]
"""

import ast
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "equations.md"
MODULES = {
    "core/schedule": "The noise schedule",
    "core/diffusion": "The forward process and its posterior",
    "core/process": "The process in general form: DDPM, EDM and flow",
    "core/loss": "The loss",
    "core/likelihood": "The variational bound",
    "core/sampling": "The reverse process",
    "core/editing": "Between images, near one, and into its gaps",
    "core/guidance": "Guidance",
    "core/layers": "The layers",
    "core/unet": "The network",
    "core/ema": "The average of the weights",
    "training/step": "The training step",
    "training/optimizers": "Muon",
    "training/augment": "Augmentation that does not leak",
    "evaluation/metrics": "The distance between samples and data",
}
PAPERS = {
    "DDPM": "Ho, Jain and Abbeel 2020, Denoising Diffusion Probabilistic Models (arXiv 2006.11239)",
    "DDIM": "Song, Meng and Ermon 2021, Denoising Diffusion Implicit Models (arXiv 2010.02502)",
    "Improved DDPM": "Nichol and Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models "
    "(arXiv 2102.09672)",
    "RePaint": "Lugmayr et al. 2022, RePaint: Inpainting using Denoising Diffusion Probabilistic "
    "Models (arXiv 2201.09865)",
    "SDEdit": "Meng et al. 2022, SDEdit: Guided Image Synthesis and Editing with Stochastic "
    "Differential Equations (arXiv 2108.01073)",
    "Dhariwal and Nichol 2021": "Diffusion Models Beat GANs on Image Synthesis (arXiv 2105.05233)",
    "Kingma et al. 2021": "Variational Diffusion Models (arXiv 2107.00630)",
    "Salimans and Ho 2022": "Progressive Distillation for Fast Sampling of Diffusion Models "
    "(arXiv 2202.00512)",
    "Ho and Salimans 2022": "Classifier-Free Diffusion Guidance (arXiv 2207.12598)",
    "DPM-Solver": "Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model "
    "Sampling in Around 10 Steps (arXiv 2206.00927)",
    "DPM-Solver++": "Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion "
    "Probabilistic Models (arXiv 2211.01095)",
    "Chen 2023": "On the Importance of Noise Scheduling for Diffusion Models (arXiv 2301.10972)",
    "EDM": "Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models "
    "(arXiv 2206.00364)",
    "Karras et al. 2024": "Guiding a Diffusion Model with a Bad Version of Itself "
    "(arXiv 2406.02507)",
    "Heusel et al. 2017": "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash "
    "Equilibrium (arXiv 1706.08500)",
    "Kynkäänniemi et al. 2024": "Applying Guidance in a Limited Interval Improves Sample and "
    "Distribution Quality in Diffusion Models (arXiv 2404.07724)",
    "Ning et al. 2024": "Elucidating the Exposure Bias in Diffusion Models (arXiv 2308.15321)",
    "Jordan et al. 2024": "Muon: An optimizer for hidden layers in neural networks "
    "(kellerjordan.github.io/posts/muon)",
    "Liu et al. 2025": "Muon is Scalable for LLM Training (arXiv 2502.16982)",
    "Hang et al. 2023": "Efficient Diffusion Training via Min-SNR Weighting Strategy "
    "(arXiv 2303.09556)",
    "Liu et al. 2023": "Flow Straight and Fast: Learning to Generate and Transfer Data with "
    "Rectified Flow (arXiv 2209.03003)",
    "Lipman et al. 2023": "Flow Matching for Generative Modeling (arXiv 2210.02747)",
    "Lin et al. 2024": "Common Diffusion Noise Schedules and Sample Steps are Flawed "
    "(arXiv 2305.08891)",
    "Esser et al. 2024": "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis "
    "(arXiv 2403.03206)",
    "Vaswani et al. 2017": "Attention Is All You Need (arXiv 1706.03762)",
}


def cited(node: ast.Module) -> Iterator[tuple[str, str]]:
    """Every class, method and function, in order, whose docstring cites a paper."""

    def visit(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for item in body:
            if isinstance(item, ast.FunctionDef | ast.ClassDef):
                doc = ast.get_docstring(item) or ""
                words = " ".join(doc.split())
                if any(f"[{paper}" in words for paper in PAPERS) or "D_KL(N" in words:
                    yield prefix + item.name, doc
            if isinstance(item, ast.ClassDef):
                yield from visit(item.body, f"{prefix}{item.name}.")

    yield from visit(node.body, "")


def page() -> str:
    parts = [
        "# The equations, and where each lives",
        "Made from the docstrings by `python scripts/equations.py`; do not edit it by hand.",
    ]
    for module, title in MODULES.items():
        parts.append(f"## {title}: [`{module}.py`](../src/ddpm/{module}.py)")
        tree = ast.parse((ROOT / "src" / "ddpm" / f"{module}.py").read_text(encoding="utf-8"))
        for name, doc in cited(tree):
            parts.append(f"### `{name}`\n\n{textwrap.indent(doc, '    ')}")
    parts.append("## The papers")
    parts.append("\n".join(f"- **{short}**: {full}" for short, full in PAPERS.items()))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != text:
            print(f"{TARGET.name} is not what the docstrings say: run python scripts/equations.py")
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
