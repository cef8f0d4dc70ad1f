"""A few channels of several levels, drawn at random (PaDiM, arXiv:2011.08785, Sec. III-A)."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone


def check_dimensions(backbone: Backbone, dimensions: int) -> int:
    """The number of channels of all levels; UsageError unless `dimensions` is from 1 to that."""
    total = sum(backbone.channels)
    if not 1 <= dimensions <= total:
        raise UsageError(
            f"dimensions={dimensions}: '{backbone.name}' has {total} channels in its layers "
            f"{list(backbone.layers)}; take from 1 to {total}"
        )
    return total


def draw_channels(backbone: Backbone, dimensions: int, seed: int) -> Tensor:
    """`dimensions` indices, rising, into the channels of all levels side by side; equal for equal seeds.

    Python's generator, as in the codes that use it: seed 1024 gives the very channels of PaDiM's published
    figures, and of SOMAD's. Sorted, those of a level lie together; no distance depends on their order.
    """
    total = check_dimensions(backbone, dimensions)
    return torch.tensor(sorted(random.Random(seed).sample(range(total), dimensions)))


def count_by_level(picked: Tensor, channels: Sequence[int]) -> list[int]:
    """How many of the rising indices `picked` fall on each level; `channels` is the levels' width."""
    ends = [bisect_left(picked.tolist(), end) for end in accumulate(channels)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def join_channels(
    levels: Sequence[Tensor], picked: Tensor, counts: Sequence[int], enlarge: Literal["repeat", "corners"]
) -> Tensor:
    """The picked channels (B, d, h, w) of levels (B, C, h, w), finest first, on the grid of the first.

    Deeper levels are enlarged by repeating their cells, or bilinearly with corner on corner. `counts` as from
    `count_by_level`: known beforehand, so that no device has to be asked.
    """
    size = levels[0].shape[2:]
    found, start = [], 0
    for level, chosen in zip(levels, picked.split(list(counts)), strict=True):
        if len(chosen):  # picked before they are enlarged, in one go from channels-last memory
            rows = level.permute(0, 2, 3, 1).flatten(0, 2).index_select(1, chosen - start)
            maps = rows.unflatten(0, (len(level), *level.shape[2:])).permute(0, 3, 1, 2)
            if maps.shape[2:] != size:
                maps = (
                    F.interpolate(maps, size=size, mode="nearest")
                    if enlarge == "repeat"
                    else F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
                )
            found.append(maps)
        start += level.shape[1]
    return torch.cat(found, 1)
