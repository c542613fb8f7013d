"""Algorithm 1: train a diffusion model on handwritten digits, and keep its weights.

python examples/train_mnist.py [steps]
"""

import sys

import torch

from ddpm import EMA, Batches, Config, build, build_loss, drop_labels, load_images, save
from ddpm.config import DiffusionConfig, SampleConfig, UNetConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
torch.manual_seed(0)

# x_0 ~ q(x_0): 5,000 digits, scaled to [−1, 1]
data = load_images("mnist5k")
batches = Batches(data, batch=128)

# q(x_t | x_0), and a U-Net that predicts v from x_t, t and the class
config = Config(
    unet=UNetConfig(channels=32, mults=(1, 2), attention=(4,), groups=8, patch=2),
    diffusion=DiffusionConfig(schedule="cosine", target="v", weight="min-snr"),
    sample=SampleConfig(sampler="ddim", steps=25),
)
net, diffusion = build(config, data.info)
loss_fn = build_loss(config, diffusion)
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, betas=(0.9, 0.99))
ema = EMA(net, decay=0.995)

for step in range(steps):
    x0, y = batches(step)
    if y is not None:  # c ← ∅, for guidance
        y = drop_labels(y, config.train.label_drop, null=net.num_classes)
    t = loss_fn.sample_times(len(x0))  # t ~ Uniform({1, …, T})
    eps = torch.randn_like(x0)  # ε ~ N(0, I)
    loss = loss_fn(net, x0, t, eps, y).mean()

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    ema.update(net)
    if step % 50 == 0:
        print(f"step {step:5}  loss {loss.item():.4f}", flush=True)

save("digits.safetensors", ema.model, config, data.info, steps, 128 * steps)
print("wrote digits.safetensors; now: python examples/generate.py")
