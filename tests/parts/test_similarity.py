"""Similarities against scikit-image and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from ad_bench.errors import UsageError
from ad_bench.parts.similarity import (
    cosine_distance,
    gradient_magnitude,
    gradient_similarity,
    multi_scale_gradient_similarity,
    ssim,
)


def pair(channels: int = 1, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    one = torch.rand(2, channels, side, side, generator=draws, dtype=torch.float64)
    return one, (one + 0.3 * torch.rand(one.shape, generator=draws, dtype=torch.float64)).clamp(0, 1)


def test_ssim_equals_scikit_image_away_from_the_border():
    one, other = pair(3)
    ours = ssim(one, other)
    for image in range(2):
        for channel in range(3):
            _, theirs = structural_similarity(
                one[image, channel].numpy(),
                other[image, channel].numpy(),
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                win_size=11,
                use_sample_covariance=False,
                full=True,
            )
            inside = (slice(5, -5), slice(5, -5))
            np.testing.assert_allclose(ours[image, channel][inside].numpy(), theirs[inside], atol=1e-10)


def test_ssim_of_a_pair_is_one_and_its_peak_is_a_scale():
    one, other = pair()
    torch.testing.assert_close(ssim(one, one), torch.ones_like(one))
    torch.testing.assert_close(ssim(255 * one, 255 * other, peak=255.0), ssim(one, other))
    with pytest.raises(UsageError, match="odd number of pixels; got 10"):
        ssim(one, other, window=10)


def test_the_gradient_of_a_ramp():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 6, 8) * 0.1
    inside = gradient_magnitude(ramp)[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.2))  # three rows of 0.2, a third of them
    both = gradient_magnitude(torch.cat([ramp, torch.rand(1, 1, 6, 8)], 1))
    torch.testing.assert_close(both[0, 0], gradient_magnitude(ramp)[0, 0])  # channels do not mix


def test_gradient_similarity_by_hand():
    flat, ramp = torch.zeros(1, 1, 6, 8), torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 6, 8) * 0.1
    inside = gradient_similarity(flat, ramp)[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.0026 / (0.04 + 0.0026)), atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient_similarity(ramp, ramp), torch.ones_like(ramp))


def test_scales_are_averaged():
    one, other = pair(1, 32)
    halves = [torch.nn.functional.avg_pool2d(x, 2) for x in (one, other)]
    coarse = torch.nn.functional.interpolate(
        gradient_similarity(*halves), size=(32, 32), mode="bilinear", align_corners=False
    )
    expected = (gradient_similarity(one, other) + coarse) / 2
    torch.testing.assert_close(multi_scale_gradient_similarity(one, other, scales=2), expected)


def test_cosine_distance_knows_no_length():
    one = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(1)) + 0.1
    torch.testing.assert_close(cosine_distance(one, 7 * one), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distance(one, -one), torch.full((2, 3, 4), 2.0))


def test_similarities_have_gradients_where_nothing_changes():
    one = torch.zeros(1, 1, 16, 16, requires_grad=True)
    black = one.detach()
    (ssim(one, black).mean() + multi_scale_gradient_similarity(one, black).mean()).backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()
