"""Coordinate attention: position by position, and what it can tell apart."""

from __future__ import annotations

import torch

from ad_bench.parts.coordinates import CoordinateAttention


def test_rows_and_columns_are_weighed_by_their_means() -> None:
    torch.manual_seed(0)
    attention, maps = CoordinateAttention(16).eval(), torch.rand(2, 16, 5, 7)
    found = attention(maps)
    assert found.shape == maps.shape
    for row in range(5):
        for column in range(7):
            down = attention.rows(attention.joint(maps[:, :, row].mean(2)[..., None, None])).sigmoid()
            across = attention.columns(
                attention.joint(maps[:, :, :, column].mean(2)[..., None, None])
            ).sigmoid()
            wanted = maps[:, :, row, column] * (down * across)[..., 0, 0]
            torch.testing.assert_close(found[:, :, row, column], wanted)


def test_the_bottleneck_has_at_least_eight_channels() -> None:
    assert CoordinateAttention(64).joint[0].out_channels == 8
    assert CoordinateAttention(512).joint[0].out_channels == 16
