"""Denoising diffusion: how an image becomes noise step by step, and how a step is taken back.

Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020; the cosine betas are Nichol & Dhariwal's,
ICML 2021. Times count from 0: at time t an image has been noised t + 1 times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ad_bench.errors import UsageError


def linear_betas(steps: int) -> Tensor:
    """(steps,) float64: 1e-4 to 0.02 for 1000 steps, for others as much noise in the end."""
    return torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """(steps,) float64: the share of the image left falls as a squared cosine."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    left = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - left[1:] / left[:-1]).clamp(max=0.999)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


class Diffusion:
    """The two ways along a chain of given betas, the variances of its single steps.

    A `time` is one for all images or (B,) for (B, ...); noise is of variance 1 where the formulas are exact.
    """

    def __init__(self, betas: Tensor):
        if betas.ndim != 1 or len(betas) < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise UsageError("betas are at least two variances between 0 and 1: take more steps")
        betas = betas.double()
        self.kept = (1 - betas).cumprod(0)  # of the image's power, in the noised one
        before = torch.cat([self.kept.new_ones(1), self.kept[:-1]])
        self.posterior_variance = betas * (1 - before) / (1 - self.kept)
        self.of_clean = betas * before.sqrt() / (1 - self.kept)
        self.of_noised = (1 - betas).sqrt() * (1 - before) / (1 - self.kept)
        self.step_variance = torch.cat([self.posterior_variance[1:2], betas[1:]])

    def __len__(self) -> int:
        return len(self.kept)

    def noised(self, clean: Tensor, noise: Tensor, time: int | Tensor) -> Tensor:
        """The image at `time`, in one step: q(x_t | x_0)."""
        kept = at(self.kept, time, clean)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def cleaned(self, noised: Tensor, noise: Tensor, time: int | Tensor) -> Tensor:
        """What `noised` made it of with this noise."""
        kept = at(self.kept, time, noised)
        return noised / kept.sqrt() - (1 / kept - 1).sqrt() * noise

    def posterior_mean(self, clean: Tensor, noised: Tensor, time: int | Tensor) -> Tensor:
        """Of the image one step before `time`, both ends known: q(x_t-1 | x_t, x_0)."""
        return at(self.of_clean, time, noised) * clean + at(self.of_noised, time, noised) * noised

    def back(self, noised: Tensor, predicted: Tensor, fresh: Tensor | None, time: int | Tensor) -> Tensor:
        """One step back: the posterior's mean for the clean image that the predicted noise leaves, clamped to
        [-1, 1], and fresh noise of the step's variance; None at time 0."""
        clean = self.cleaned(noised, predicted, time).clamp(-1, 1)
        mean = self.posterior_mean(clean, noised, time)
        return mean if fresh is None else mean + at(self.step_variance, time, noised).sqrt() * fresh


def at(values: Tensor, time: int | Tensor, like: Tensor) -> Tensor:
    """The values of these times, shaped to be multiplied with (B, ...)."""
    picked = values.to(like.device)[time].to(like.dtype)
    return picked.view(-1, *[1] * (like.ndim - 1))
