"""Make the pictures that the demo opens with: python scripts/demo_pictures.py

For each of the bundled weights a card of four samples, and a film of the first one: x_t above x̂_0,
step after step. They are samples of seed 0, not chosen.
"""

from pathlib import Path

import torch
from PIL import Image

from ddpm import generate, load
from ddpm.checkpoint.header import PRETRAINED
from ddpm.generation.generate import cycle_labels, trajectories
from ddpm.utils.images import grid, to_uint8

CARDS = Path(__file__).parents[1] / "src" / "ddpm" / "demo" / "static" / "cards"
SIDE = 128


def main() -> None:
    CARDS.mkdir(exist_ok=True)
    preview = []
    for name in PRETRAINED:
        checkpoint = load(name)
        images = generate(checkpoint, 8, seed=0).images
        card = grid(images[:4], 2, gap=0)
        zoom = SIDE / max(card.size)
        kind = Image.Resampling.NEAREST if images.shape[1] == 1 else Image.Resampling.BICUBIC
        size = (round(card.width * zoom), round(card.height * zoom))
        card.convert("RGB").resize(size, kind).save(CARDS / f"{name}.webp", quality=88)
        preview.append(grid(images, 4, gap=0).convert("RGB").resize((400, 200)))
        y, settings = cycle_labels(1, (), checkpoint.data), checkpoint.config.sample
        columns = []
        for state in trajectories(checkpoint, 1, range(1), 0, y, settings):
            x0 = torch.zeros_like(state.x) if state.x0 is None else state.x0
            columns.append(torch.cat([to_uint8(state.x)[0], to_uint8(x0)[0]], dim=1))
        film = grid(torch.stack(columns), len(columns), gap=0).convert("RGB")
        film.save(CARDS / f"{name}-opening.webp", quality=80)
    sheet = Image.new("RGB", (1200, 630), "#121317")
    for i, picture in enumerate(preview):
        sheet.paste(picture.resize((390, 195)), (5 + 400 * i, 217))
    sheet.save(CARDS.parent / "preview.png", optimize=True)


if __name__ == "__main__":
    main()
