from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Literal, cast

import pytest
import torch
import torch.nn.functional as F

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.channels import check_dimensions, count_by_level, draw_channels, join_channels

BACKBONE = cast(Backbone, SimpleNamespace(name="made", layers=(1, 2, 3), channels=(4, 6, 2)))


def test_the_draw_is_pythons_sorted_and_leaves_the_global_generator_alone() -> None:
    random.seed(1)
    state = random.getstate()
    drawn = draw_channels(BACKBONE, 5, 1024)
    assert random.getstate() == state
    assert drawn.tolist() == sorted(random.Random(1024).sample(range(12), 5))
    assert drawn.tolist() != draw_channels(BACKBONE, 5, 1).tolist()


@pytest.mark.parametrize("picked", [[0], [3, 4], [1, 2, 9, 10, 11], [4, 9], list(range(12))])
@pytest.mark.parametrize("enlarge", ["repeat", "corners"])
def test_joined_equals_indexing_of_all(picked: list[int], enlarge: Literal["repeat", "corners"]) -> None:
    sides = (8, 4, 2)
    levels = [torch.randn(2, width, side, side) for width, side in zip(BACKBONE.channels, sides, strict=True)]
    counts = count_by_level(torch.tensor(picked), BACKBONE.channels)
    assert counts == [sum(low <= one < high for one in picked) for low, high in ((0, 4), (4, 10), (10, 12))]
    if enlarge == "repeat":
        index = [torch.arange(8) * side // 8 for side in sides]
        large = [level[:, :, i][..., i] for level, i in zip(levels, index, strict=True)]
    else:
        large = [F.interpolate(level, size=8, mode="bilinear", align_corners=True) for level in levels]
    found = join_channels(levels, torch.tensor(picked), counts, enlarge)
    torch.testing.assert_close(found, torch.cat(large, 1)[:, picked], rtol=0, atol=0)


@pytest.mark.parametrize("dimensions", [0, 13])
def test_impossible_dimensions_are_named(dimensions: int) -> None:
    with pytest.raises(UsageError, match=rf"={dimensions}: 'made' has 12 channels .*take from 1 to 12"):
        check_dimensions(BACKBONE, dimensions)
