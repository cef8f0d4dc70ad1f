"""How far a student's levels are from its teacher's, and several levels as one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from ad_bench.parts.maps import upsample


def unit_distance(known: Tensor, learnt: Tensor) -> Tensor:
    """(B, C, h, w) twice -> (B, h, w) in [0, 4]: squared distance of normalised features, 2 - 2 cos."""
    return (F.normalize(known, dim=1) - F.normalize(learnt, dim=1)).square().sum(1)


def multiplied(levels: Sequence[Tensor]) -> Tensor:
    """Of each level (B, h, w) -> (B, h, w) of the first: the others brought to its size, all multiplied."""
    first, *deeper = levels
    size = cast(tuple[int, int], tuple(first.shape[-2:]))
    for level in deeper:
        first = first * upsample(level, size)
    return first
