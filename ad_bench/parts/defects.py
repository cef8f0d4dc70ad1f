"""Defects that never were, as DRAEM makes them: a foreign texture inside of a noise mask.

Zavrtanik et al., ICCV 2021, arXiv:2108.07610, Sec. 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ad_bench.parts.blend import blend
from ad_bench.parts.chance import happens, uniform
from ad_bench.parts.distort import distorted
from ad_bench.parts.perlin import PerlinMasks
from ad_bench.parts.textures import Textures


class TextureDefects:
    """Textures, each changed by so many `distortions`, laid over a share `anomalous` of the images.

    textures: None or a folder, see `Textures`. opacity: of the texture, from and to.
    """

    def __init__(
        self,
        textures: str | None,
        distortions: int,
        anomalous: float,
        masks: PerlinMasks,
        opacity: tuple[float, float],
    ):
        self.textures, self.distortions, self.anomalous = Textures(textures), distortions, anomalous
        self.masks, self.opacity = masks, opacity

    def spoil(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(3, H, W) in [0, 1] -> it with a defect, or as it is; the mask (H, W) bool, at times empty."""
        size = (image.shape[1], image.shape[2])
        if not happens(generator, self.anomalous):
            return image, torch.zeros(size, dtype=torch.bool, device=image.device)
        texture = distorted(self.textures.draw(size, generator), self.distortions, generator)
        mask = self.masks.draw(size, generator).to(image.device)
        return blend(image, texture.to(image.device), mask, uniform(generator, *self.opacity)), mask
