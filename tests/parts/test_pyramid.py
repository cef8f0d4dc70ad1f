"""Steps of the pyramid against numbers worked by hand and a slow loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_bench.parts.pyramid import doubled, halved

WEIGHTS = (1, 4, 6, 4, 1)


def noise(height: int, width: int) -> Tensor:
    drawn = torch.randint(256, (2, 3, height, width), generator=torch.Generator().manual_seed(height))
    return drawn.float()


def mirrored(position: int, length: int) -> int:
    """The pixel that stands for one outside; the edge itself is not repeated."""
    position = abs(position)
    return position if position < length else 2 * (length - 1) - position


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 3)])
def test_halved_equals_a_slow_loop(height: int, width: int) -> None:
    levels = noise(height, width)
    found = halved(levels)
    assert found.shape == (2, 3, (height + 1) // 2, (width + 1) // 2)
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            total = sum(
                one * other * levels[..., mirrored(2 * row + y, height), mirrored(2 * column + x, width)]
                for y, one in enumerate(WEIGHTS, start=-2)
                for x, other in enumerate(WEIGHTS, start=-2)
            )
            assert isinstance(total, Tensor)
            assert torch.equal(found[..., row, column], (total + 128).div(256, rounding_mode="floor"))


def test_doubled_by_hand() -> None:
    """One row after the other: between two pixels their mean, on one 6/8 of it; the last column repeats."""
    row = torch.tensor([80.0, 160.0, 0.0])
    wanted = [100.0, 120.0, 130.0, 80.0, 20.0, 0.0]  # (6a+2b)/8, (a+b)/2, (a+6b+c)/8, (b+c)/2, (b+7c)/8, c
    for levels in (row.expand(1, 1, 2, 3), row[:, None].expand(1, 1, 3, 2)):
        found = doubled(levels)
        along = found[0, 0, 0] if levels.shape[3] == 3 else found[0, 0, :, 0]
        assert along.tolist() == wanted
        assert torch.equal(found.amax(), torch.tensor(130.0))


def test_a_plain_image_stays() -> None:
    plain = torch.full((1, 3, 8, 8), 77.0)
    assert torch.equal(doubled(halved(plain)), plain)
