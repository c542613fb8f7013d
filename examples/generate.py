"""Algorithm 2: from noise to images, one reverse step after another.

python examples/generate.py [checkpoint] [steps]
"""

import sys

import torch

from ddpm import ImageNoise, ddpm_step, grid, load, sample, timesteps, to_uint8

path = sys.argv[1] if len(sys.argv) > 1 else "digits.safetensors"
checkpoint = load(path)
net, diffusion, data = checkpoint.net, checkpoint.diffusion, checkpoint.data
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100

n = 20
y = torch.arange(n) % len(data.classes) if data.classes else None  # every class in turn
denoise = diffusion.denoiser(net, y)  # x̂_0 and ε̂ in x_t
noise = ImageNoise(seed=0, indices=range(n), shape=data.shape)

# x_T ~ N(0, I);  for t = T, …, 1:  x_{t−1} = μ̃(x_t, x̂_0) + σ_t z
times = timesteps(diffusion.schedule, steps)
for state in sample(diffusion, denoise, noise, times, step=ddpm_step):
    print(f"\rt = {state.t:4}", end="", flush=True)

grid(to_uint8(state.x), columns=10, zoom=2).save("digits.png")
print("\rwrote digits.png")
