"""Weights that follow others slowly: exponential moving averages."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Take `decay` of each of the average's parameters and the rest of the source's; buffers as they are."""
    for slow, fast in zip(average.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
