"""Blending and shuffling by hand."""

from __future__ import annotations

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.blend import blend, shuffle_blocks


def test_blend_by_hand_and_untouched_outside() -> None:
    image, foreign = torch.rand(3, 6, 5), torch.rand(3, 6, 5)
    mask = torch.rand(6, 5) > 0.5
    found = blend(image, foreign, mask, 0.3)
    assert torch.equal(found[:, ~mask], image[:, ~mask])
    torch.testing.assert_close(found[:, mask], 0.3 * foreign[:, mask] + 0.7 * image[:, mask])
    torch.testing.assert_close(blend(image, foreign, mask, 1.0)[:, mask], foreign[:, mask])


def test_blocks_are_moved_whole() -> None:
    image = torch.arange(2 * 4 * 6, dtype=torch.float32).view(2, 4, 6)
    found = shuffle_blocks(image, 2, torch.Generator().manual_seed(1))

    def blocks(one: torch.Tensor) -> list[list[float]]:
        return [
            one[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].flatten().tolist() for i in (0, 1) for j in (0, 1)
        ]

    assert blocks(found) != blocks(image)
    assert sorted(blocks(found)) == sorted(blocks(image))
    assert torch.equal(shuffle_blocks(image, 1, torch.Generator()), image)


def test_uneven_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="10x16"):
        shuffle_blocks(torch.zeros(3, 10, 16), 8, torch.Generator())
