"""Losses that several papers share."""

from __future__ import annotations

import torch
from torch import Tensor


def focal(probability: Tensor, target: Tensor, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """(B, K, H, W) probabilities and (B, H, W) classes -> the mean of -(1 - p)^gamma log p.

    Lin et al., ICCV 2017; p is what the target's class is given. `smooth` keeps the logarithm finite.
    """
    given = probability.gather(1, target[:, None].long())[:, 0].clamp(smooth, 1 - smooth)
    return (-((1 - given) ** gamma) * torch.log(given)).mean()
