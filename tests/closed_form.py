"""Data whose best denoiser is known, to hold a sampler or a bound against."""

import torch

from ddpm import Prediction


def closed_form_gaussian(diffusion, mean, var):
    """E[x_0 | x_t] = m + √ᾱ_t c² / (ᾱ_t c² + 1 − ᾱ_t) · (x_t − √ᾱ_t m), for x_0 ~ N(m, c² I)"""

    def denoise(x_t, t):
        a = diffusion.schedule.at(t)
        x0 = mean + a.sqrt() * var / (a * var + 1 - a) * (x_t - a.sqrt() * mean)
        return Prediction(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt())

    return denoise


def mixture(diffusion, means, weights, std):
    """E[x_0|x_t] for a mixture of Gaussians: each part's own, by its share of the evidence."""

    def denoise(x_t, t):
        a = diffusion.schedule.at(t)
        parts = [closed_form_gaussian(diffusion, m, std**2)(x_t, t).x0 for m in means]
        var = a * std**2 + 1 - a
        logs = [
            torch.log(torch.tensor(w)) - (x_t - a.sqrt() * m) ** 2 / (2 * var)
            for m, w in zip(means, weights, strict=True)
        ]
        share = torch.stack(logs).softmax(0)
        x0 = (share * torch.stack(parts)).sum(0)
        return Prediction(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt())

    return denoise
