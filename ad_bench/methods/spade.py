"""SPADE: the most similar normal images, then for every pixel the most similar one within them.

Paper: Cohen and Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv:2005.02357. No
code by the authors. The widely used reading, marked [R] here and in the YAML, is byungjae89/SPADE-pytorch at
077c67b, Apache-2.0: its settings stand in the YAML, and a fixture made with it in the tests. The paper's own
(50 images, squared distances, levels joined) can be set.
Deviations from [R]:
  1. Of the gallery every pixel is searched; [R] goes by hundreds and leaves out the last, incomplete one.
  2. Distances are those of the features; [R] adds 1e-6 to every difference between two pixels.
  3. Of fewer training images than `neighbors` all count; [R] stops with an error.
Memory: all feature maps of all training images are kept, 5.6 MB an image of 224 with Wide ResNet-50.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.gather import gather
from ad_bench.parts.maps import gaussian_blur, upsample
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.patches import resize_grid


class Spade(Method):
    """Image score: mean distance to `neighbors` images. Map: distance to the nearest pixel of these images.

    pyramid: "each" searches every level on its own and averages the maps, "joined" (the paper's) searches
    with the levels concatenated on the grid of the first.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_layer: int,
        pixel_layers: Sequence[int],
        pyramid: Literal["each", "joined"],
        neighbors: int,
        squared: bool,
        sigma: float,
    ):
        unknown = sorted({image_layer, *pixel_layers} - set(backbone.layers))
        if unknown or not pixel_layers:
            raise UsageError(
                f"image_layer={image_layer} and pixel_layers={list(pixel_layers)} must be among the layers "
                f"of the backbone, {list(backbone.layers)}: add what is missing to backbone.layers"
            )
        if pyramid not in ("each", "joined"):
            raise UsageError(f"pyramid is each or joined; got '{pyramid}'")
        if neighbors < 1:
            raise UsageError(f"neighbors is a number of images, at least 1; got {neighbors}")
        super().__init__()
        self.backbone, self.image_layer, self.pixel_layers = backbone, image_layer, tuple(pixel_layers)
        self.pyramid, self.neighbors, self.squared, self.sigma = pyramid, neighbors, squared, sigma
        self.images = Bank()  # (N, C)
        searches = len(self.pixel_layers) if pyramid == "each" else 1
        self.pixels = nn.ModuleList(Bank() for _ in range(searches))  # (N, h, w, C) each

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Keep the features of all normal images (Sec. 3.1)."""
        self.images.points, *tables = gather(train, run, self._tables)
        for bank, table in zip(self.pixels, tables, strict=True):
            cast(Bank, bank).points = table

    def predict(self, inputs: Inputs) -> Prediction:
        """Retrieve images (Sec. 3.2), then find the pixels in these (Sec. 3.3, 3.4), image by image."""
        vectors, grids = self.embed(inputs.images)
        distance, retrieved = nearest(vectors, self.images.points, self.neighbors)
        maps = []
        for grid, bank in zip(grids, self.pixels, strict=True):
            points = cast(Bank, bank).points
            found = [
                nearest(image.flatten(0, 1), points[chosen].flatten(0, 2))[0][:, 0]
                for image, chosen in zip(grid, retrieved, strict=True)
            ]
            maps.append(upsample(self._scaled(torch.stack(found)).view(grid.shape[:3]), inputs.size))
        return Prediction(
            self._scaled(distance).mean(1), gaussian_blur(torch.stack(maps).mean(0), self.sigma)
        )

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> (B, C), one vector an image, and pixel features (B, h, w, C'), a grid a search."""
        levels = dict(zip(self.backbone.layers, self.backbone(images), strict=True))
        vectors = levels[self.image_layer].mean((2, 3))
        grids = [levels[layer].permute(0, 2, 3, 1) for layer in self.pixel_layers]
        if self.pyramid == "joined":
            size = cast(tuple[int, int], tuple(grids[0].shape[1:3]))
            grids = [torch.cat([resize_grid(grid, size) for grid in grids], -1)]
        return vectors, grids

    def _tables(self, images: Tensor) -> list[Tensor]:
        vectors, grids = self.embed(images)
        return [vectors, *grids]

    def _scaled(self, squared: Tensor) -> Tensor:
        return squared if self.squared else squared.sqrt()
