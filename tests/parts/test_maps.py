from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ad_bench.errors import UsageError
from ad_bench.parts.maps import gaussian_blur, upsample, worst_pixel


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


def test_worst_pixel() -> None:
    maps = torch.zeros(2, 3, 4)
    maps[1, 2, 3] = 5
    assert worst_pixel(maps).tolist() == [0, 5]
