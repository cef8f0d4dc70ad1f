"""Single draws from a generator of the run: plain numbers, the same on every device."""

from __future__ import annotations

import torch


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number of [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def whole(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both possible."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def happens(generator: torch.Generator, probability: float) -> bool:
    """True with that probability."""
    return uniform(generator) < probability
