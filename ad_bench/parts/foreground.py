"""Where the product is: a threshold on the grey values, chosen by the image itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from torch import Tensor


def foreground(image: Tensor, purity: float) -> Tensor:
    """(3, H, W) in [0, 1] -> (H, W) bool: the product, its holes filled.

    Otsu's threshold parts dark from bright; the part that makes up `purity` of the image's border, or more,
    is the background. Where neither does, as on a texture, all of the image is product.
    """
    luma = image.new_tensor([0.299, 0.587, 0.114]) @ image.flatten(1)
    grey = (luma.view(image.shape[1:]) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    bright = grey > otsu(grey)
    share = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]]).mean()
    if share >= purity:
        found = ~bright
    elif 1 - share >= purity:
        found = bright
    else:
        found = np.ones_like(bright)
    if not found.any():  # one grey value everywhere
        found = np.ones_like(bright)
    return torch.from_numpy(binary_fill_holes(found)).to(image.device)


def otsu(grey: NDArray[np.uint8]) -> int:
    """The grey value that divides dark (up to it) from bright with the largest variance between the two."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(float)
    below, total = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return int(np.nan_to_num(between, nan=-1.0).argmax())
