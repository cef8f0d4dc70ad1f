from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ad_bench.parts.spatial_transformer import (
    SpatialTransformer,
    align,
    brought_back,
    inverse,
    rotation_scale,
    warp,
)


def smooth(size: int = 48) -> torch.Tensor:
    """(2, 3, size, size) waves, wide enough to be sampled twice."""
    line = torch.linspace(0, 3, size)
    return torch.stack([torch.sin(line[:, None] * k + line * (k + 1) / 2) for k in range(6)]).view(
        2, 3, size, size
    )


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_starts_with_the_identity() -> None:
    torch.manual_seed(0)
    layer = SpatialTransformer(3, 4)
    maps, theta = layer(smooth())
    torch.testing.assert_close(maps, smooth(), atol=1e-5, rtol=0)
    torch.testing.assert_close(theta, torch.eye(2, 3).expand(2, 2, 3))


def test_a_warp_and_its_inverse_leave_the_interior() -> None:
    theta = rotation_scale(numbers(0.2, -0.3), numbers(0.9, 1.1), numbers(1.05, 0.95))
    theta[:, :, 2] = torch.tensor([[0.05, -0.1], [0.0, 0.1]])
    back = warp(warp(smooth(), theta), inverse(theta))
    inner = (..., slice(12, -12), slice(12, -12))
    torch.testing.assert_close(back[inner], smooth()[inner], atol=0.04, rtol=0)
    assert (warp(smooth(), theta)[inner] - smooth()[inner]).abs().max() > 0.1, "nothing was warped"


def test_a_quarter_turn() -> None:
    maps = torch.rand(1, 2, 8, 8)
    theta = rotation_scale(numbers(math.pi / 2), numbers(1.0), numbers(1.0))
    torch.testing.assert_close(warp(maps, theta), maps.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_scales_stand_on_the_diagonal_alone() -> None:
    theta = rotation_scale(numbers(0.5), numbers(2.0), numbers(3.0))[0]
    cos, sin = math.cos(0.5), math.sin(0.5)
    torch.testing.assert_close(theta, torch.tensor([[2 * cos, -sin, 0], [sin, 3 * cos, 0]]))


def test_learns_to_undo_a_turn() -> None:
    torch.manual_seed(0)
    layer = SpatialTransformer(3, 6)
    upright = smooth(24)
    turned = warp(upright, rotation_scale(*numbers(0.3, 1.0, 1.0)[:, None].expand(3, 2)))
    steps = torch.optim.Adam(layer.parameters(), lr=3e-4)
    inner = (..., slice(6, -6), slice(6, -6))
    before = F.mse_loss(turned[inner], upright[inner])
    for _ in range(60):
        steps.zero_grad()
        F.mse_loss(layer(turned)[0][inner], upright[inner]).backward()
        steps.step()
    assert F.mse_loss(layer(turned)[0][inner], upright[inner]) < 0.2 * before
    assert (layer(turned)[1][:, 1, 0] < -0.1).all()


def test_any_size_is_pooled_to_the_grid() -> None:
    layer = SpatialTransformer(3, 4)
    assert layer(torch.rand(2, 3, 14, 14))[0].shape == (2, 3, 14, 14)
    assert layer(torch.rand(2, 3, 5, 9))[0].shape == (2, 3, 5, 9)
    looked = layer.look[:-1](torch.rand(1, 3, 14, 14))
    assert looked.shape[-2:] == (4, 4)
    torch.testing.assert_close(layer.look[-1](looked), looked)


def test_each_stage_sees_what_was_transformed_before_it() -> None:
    """Two quarter turns, a shift of the values between them; and back again."""

    def turn(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        theta = rotation_scale(numbers(math.pi / 2), numbers(1.0), numbers(1.0))
        return warp(maps, theta), theta

    maps = torch.rand(1, 2, 8, 8)
    levels, thetas = align([lambda one: one, lambda one: one + 1], [turn, turn], maps)
    torch.testing.assert_close(levels[0], maps.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(levels[1], maps.rot90(2, (2, 3)) + 1, atol=1e-5, rtol=0)
    torch.testing.assert_close(brought_back(levels[1], thetas), maps + 1, atol=1e-5, rtol=0)
    assert torch.equal(brought_back(maps, []), maps)


def test_the_last_transformation_is_undone_first() -> None:
    turn = rotation_scale(numbers(0.5, 0.5), numbers(1.0, 1.0), numbers(1.0, 1.0))
    stretch = rotation_scale(numbers(0.0, 0.0), numbers(1.0, 1.0), numbers(0.7, 0.7))
    inner = (..., slice(18, -18), slice(18, -18))
    seen = warp(warp(smooth(), turn), stretch)
    right, wrong = brought_back(seen, [turn, stretch]), brought_back(seen, [stretch, turn])
    torch.testing.assert_close(right[inner], smooth()[inner], atol=0.04, rtol=0)
    assert (wrong[inner] - smooth()[inner]).abs().max() > 0.1
