"""The code of a position, value by value, and that positions differ."""

from __future__ import annotations

import math

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.positions import sine_positions


def test_value_by_value() -> None:
    codes = sine_positions(8, 3, 5)
    assert codes.shape == (8, 3, 5)
    for row in range(3):
        for column in range(5):
            wanted = [
                function(place / 10_000 ** (2 * i / 4))
                for place in (column, row)
                for i in range(2)
                for function in (math.sin, math.cos)
            ]
            torch.testing.assert_close(codes[:, row, column], torch.tensor(wanted))


def test_no_two_positions_are_alike() -> None:
    codes = sine_positions(128, 32, 32).flatten(1).T
    distance = torch.cdist(codes, codes) + 10 * torch.eye(len(codes))
    assert distance.min() > 0.5


@pytest.mark.parametrize("dimensions", [0, 6, 127])
def test_impossible_dimensions_are_named(dimensions: int) -> None:
    with pytest.raises(UsageError, match=f"multiple of 4.*got {dimensions}"):
        sine_positions(dimensions, 2, 2)
