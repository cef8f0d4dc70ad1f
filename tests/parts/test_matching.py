"""Distances of unit vectors, and maps that are multiplied."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ad_bench.parts.matching import multiplied, unit_distance


def test_a_distance_is_2_minus_2_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    known, learnt = torch.randn(2, 2, 7, 3, 4, generator=generator)
    found = unit_distance(known, learnt)
    torch.testing.assert_close(found, 2 - 2 * F.cosine_similarity(known, learnt, dim=1))
    torch.testing.assert_close(unit_distance(3 * known, learnt / 5), found)
    torch.testing.assert_close(unit_distance(known, -known), torch.full((2, 3, 4), 4.0))
    assert unit_distance(known, known).max() == 0


def test_levels_are_multiplied_at_the_size_of_the_first() -> None:
    first, half, rest = torch.rand(1, 8, 6), torch.full((1, 4, 3), 0.5), torch.full((1, 2, 2), 3.0)
    torch.testing.assert_close(multiplied([first, half, rest]), 1.5 * first)
    torch.testing.assert_close(multiplied([first, rest, half]), 1.5 * first)
    assert multiplied([half, first]).shape == half.shape
    assert multiplied([first]) is first
