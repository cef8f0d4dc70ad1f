"""Defects that never were: something foreign laid over an image, inside a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from ad_bench.errors import UsageError


def blend(image: Tensor, foreign: Tensor, mask: Tensor, opacity: float) -> Tensor:
    """(C, H, W) twice, mask (H, W) bool -> inside it `opacity` of `foreign` and the rest of `image`.

    Outside the mask the image is the same to the last bit.
    """
    return torch.where(mask, opacity * foreign + (1 - opacity) * image, image)


def shuffle_blocks(image: Tensor, grid: int, generator: torch.Generator) -> Tensor:
    """(C, H, W) cut into grid x grid blocks, which are laid out anew in a drawn order."""
    channels, height, width = image.shape
    if height % grid or width % grid:
        raise UsageError(
            f"images of {height}x{width} do not divide into {grid}x{grid} equal blocks: choose method.input "
            f"with multiples of {grid}, or another grid"
        )
    blocks = image.view(channels, grid, height // grid, grid, width // grid).transpose(2, 3).flatten(1, 2)
    order = torch.randperm(grid * grid, generator=generator).to(image.device)
    return blocks[:, order].unflatten(1, (grid, grid)).transpose(2, 3).reshape(image.shape)
