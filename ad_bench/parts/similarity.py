"""How alike two images or feature maps are, position by position: cosine, SSIM, gradient magnitude."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.errors import UsageError

GMS_CONSTANT = 0.0026  # Xue et al., Gradient Magnitude Similarity Deviation, TIP 2014, for images in [0, 1]


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """(B, C, h, w) twice -> (B, h, w) in [0, 2]: 1 minus the cosine of the two feature vectors."""
    return 1 - F.cosine_similarity(one, other, dim=1)


def ssim(one: Tensor, other: Tensor, window: int = 11, sigma: float = 1.5, peak: float = 1.0) -> Tensor:
    """(B, C, H, W) twice, in [0, peak] -> (B, C, H, W): the structural similarity at every pixel.

    Gaussian window of `window` pixels, C1 = (0.01 peak)^2, C2 = (0.03 peak)^2 (Wang et al., TIP 2004); zeros
    beyond the border. 1 where both are alike; a loss is 1 - ssim(...).mean().
    """
    if window < 1 or window % 2 == 0:
        raise UsageError(f"the window of SSIM is an odd number of pixels; got {window}")
    offsets = torch.arange(window, device=one.device, dtype=one.dtype) - window // 2
    row = torch.exp(-0.5 * (offsets / sigma) ** 2)
    row = row / row.sum()
    channels, shapes = one.shape[1], ((1, 1, 1, window), (1, 1, window, 1))

    def mean(values: Tensor) -> Tensor:
        across, down = (row.view(shape).expand(channels, *shape[1:]) for shape in shapes)
        values = F.conv2d(values, across, padding=(0, window // 2), groups=channels)
        return F.conv2d(values, down, padding=(window // 2, 0), groups=channels)

    first, second = mean(one), mean(other)
    variance, other_variance = mean(one * one) - first**2, mean(other * other) - second**2
    covariance = mean(one * other) - first * second
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    alike = (2 * first * second + c1) * (2 * covariance + c2)
    return alike / ((first**2 + second**2 + c1) * (variance + other_variance + c2))


def gradient_magnitude(images: Tensor) -> Tensor:
    """(B, C, H, W) -> the same shape: length of the Prewitt gradient, a third of its sums; zeros beyond."""
    kernel = torch.tensor([1.0, 0.0, -1.0], device=images.device, dtype=images.dtype).expand(3, 3) / 3
    kernels = torch.stack([kernel, kernel.T])[:, None].repeat(images.shape[1], 1, 1, 1)
    x, y = F.conv2d(images, kernels, padding=1, groups=images.shape[1]).unflatten(1, (-1, 2)).unbind(2)
    return (x * x + y * y + 1e-12).sqrt()  # the root has no slope at 0


def gradient_similarity(one: Tensor, other: Tensor, constant: float = GMS_CONSTANT) -> Tensor:
    """(B, C, H, W) twice -> (B, C, H, W) in (0, 1]: similarity of their gradient magnitudes (GMS)."""
    first, second = gradient_magnitude(one), gradient_magnitude(other)
    return (2 * first * second + constant) / (first**2 + second**2 + constant)


def multi_scale_gradient_similarity(
    one: Tensor, other: Tensor, scales: int = 4, constant: float = GMS_CONSTANT
) -> Tensor:
    """(B, C, H, W) twice -> (B, C, H, W): mean GMS of `scales` sizes, each half of the one before (MSGMS).

    Coarse ones are brought back bilinearly. Zavrtanik et al., RIAD, Pattern Recognition 2021, Eq. 5 to 7.
    """
    size, total = one.shape[-2:], torch.zeros_like(one)
    for scale in range(scales):
        if scale:
            one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
        alike = gradient_similarity(one, other, constant)
        total = total + F.interpolate(alike, size=size, mode="bilinear", align_corners=False)
    return total / scales
