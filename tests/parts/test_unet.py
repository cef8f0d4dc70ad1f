"""Encoders and decoders: shapes, and what skips are for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ad_bench.errors import UsageError
from ad_bench.parts.unet import UNet, Up, convolved


def test_up_is_bilinear_with_aligned_corners_then_a_convolution() -> None:
    up, maps = Up(2, 3).eval(), torch.rand(1, 2, 4, 5)
    wide = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(up(maps), up.convolved(wide))
    assert up(maps, (7, 9)).shape == (1, 3, 7, 9)


def test_convolved_counts() -> None:
    layers = convolved(3, 4, 5)
    assert [layer.weight.shape[:2] for layer in layers if hasattr(layer, "kernel_size")] == [(4, 3), (5, 4)]


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (37, 45)])
def test_the_size_comes_back(skips: bool, size: tuple[int, int]) -> None:
    network = UNet(3, 2, [4, 6, 8], [6, 4], [6, 4], skips)
    maps = network(torch.rand(2, 3, *size))
    assert maps.shape == (2, 2, *size)
    maps.sum().backward()
    assert all(value.grad is not None for value in network.parameters())


def test_without_skips_all_passes_the_narrowest_level() -> None:
    for skips in (True, False):
        torch.manual_seed(0)
        network = UNet(1, 1, [4, 4, 4], [4, 4], [4, 4], skips).eval()
        images = torch.rand(1, 1, 16, 16)
        network.down[-1].register_forward_hook(lambda *_: torch.zeros(1, 4, 4, 4))
        same = torch.allclose(network(images), network(1 - images))
        assert same is not skips


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="3 widths need 2"):
        UNet(3, 2, [4, 6, 8], [6], [6], True)
