from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ad_bench.errors import UsageError
from ad_bench.parts.maps import gaussian_blur, upsample, upsample_and_blur, worst_pixel


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("size", [(64, 48), (7, 5), (1, 9)])  # smaller than the kernel, too
def test_blur_equals_scipy(size: tuple[int, int], sigma: float) -> None:
    maps = torch.rand(2, *size) * 100
    wanted = np.stack([gaussian_filter(m, sigma) for m in maps.double().numpy()])
    np.testing.assert_allclose(gaussian_blur(maps, sigma).numpy(), wanted, rtol=1e-5)


def test_blur_of_nothing() -> None:
    maps = torch.rand(2, 5, 5)
    assert torch.equal(gaussian_blur(maps, 0), maps)
    torch.testing.assert_close(gaussian_blur(torch.full((1, 30, 30), 7.0), 4), torch.full((1, 30, 30), 7.0))
    with pytest.raises(UsageError, match="sigma"):
        gaussian_blur(maps, -1)


def test_upsample_does_not_align_corners() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    torch.testing.assert_close(upsample(maps, (1, 4)), torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 4.0])
@pytest.mark.parametrize("size", [(64, 48), (20, 3), (7, 9), (5, 100)])  # larger, smaller, the same
def test_both_at_once_equal_one_after_the_other(size: tuple[int, int], sigma: float) -> None:
    maps = torch.rand(3, 7, 9) * 100
    wanted = upsample(maps.double(), size).numpy()
    if sigma:
        wanted = np.stack([gaussian_filter(m, sigma) for m in wanted])
    found = upsample_and_blur(maps, size, sigma)
    assert found.shape == (3, *size)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(gaussian_blur(upsample(maps, size), sigma).numpy(), wanted, rtol=1e-5)


def test_maps_may_lie_in_memory_as_they_like() -> None:
    maps = torch.rand(7, 9, 3)
    wanted = upsample_and_blur(maps.permute(2, 0, 1).contiguous(), (30, 20), 2.0)
    torch.testing.assert_close(upsample_and_blur(maps.permute(2, 0, 1), (30, 20), 2.0), wanted)


def test_precision_of_the_run_does_not_reach_the_maps() -> None:
    maps = torch.rand(2, 16, 16)
    wanted = upsample_and_blur(maps, (64, 64), 4.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(upsample_and_blur(maps, (64, 64), 4.0), wanted)


def test_worst_pixel() -> None:
    maps = torch.zeros(2, 3, 4)
    maps[1, 2, 3] = 5
    assert worst_pixel(maps).tolist() == [0, 5]
