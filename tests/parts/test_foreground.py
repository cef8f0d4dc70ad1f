"""Otsu's threshold against scikit-image, and the product found by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from ad_bench.parts.foreground import foreground, otsu


@pytest.mark.parametrize("seed", range(5))
def test_otsu_is_scikit_images(seed: int) -> None:
    draws = np.random.default_rng(seed)
    grey = (
        np.concatenate([draws.normal(70, 15, 500), draws.normal(180, 20, 300)]).clip(0, 255).astype(np.uint8)
    )
    assert otsu(grey[None]) == threshold_otsu(grey)


@pytest.mark.parametrize("dark", [True, False])
def test_the_product_is_what_the_border_is_not_and_has_no_holes(dark: bool) -> None:
    rows, columns = torch.meshgrid(torch.arange(40) - 20, torch.arange(50) - 25, indexing="ij")
    radius = (rows**2 + columns**2).sqrt()
    disc = radius < 15
    image = torch.where(disc & (radius > 5), 0.1, 0.9).expand(
        3, 40, 50
    )  # a ring; its middle looks like the rest
    found = foreground(image if dark else 1 - image, 0.9)
    assert torch.equal(found, disc)


def test_a_texture_is_product_all_over() -> None:
    assert foreground(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), 0.9).all()
    assert foreground(torch.full((3, 8, 8), 0.5), 0.9).all()
