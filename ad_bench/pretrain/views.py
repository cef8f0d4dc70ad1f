"""Views of an image: cut out, mirrored, coloured and blurred at random, for self-supervised learning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision.transforms.functional as T
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import happens, uniform, whole
from ad_bench.parts.cutpaste import jitter

RATIO = math.log(4 / 3)  # of the sides of what is cut out, either way; as torchvision's RandomResizedCrop


class View:
    """Makes (3, size, size) of an image (3, H, W) in [0, 1].

    crop: lowest and highest share of the image that is cut out. colours: how far brightness, contrast,
    saturation and hue go, with probability `coloured`. grey, blurred, mirrored: probabilities. blur: lowest
    and highest deviation, pixels.
    """

    def __init__(
        self,
        size: int,
        crop: tuple[float, float],
        colours: Sequence[float],
        coloured: float,
        grey: float,
        blurred: float,
        blur: tuple[float, float],
        mirrored: float,
    ):
        if size < 1 or not 0 < crop[0] <= crop[1] <= 1 or len(colours) != 4 or not 0 < blur[0] <= blur[1]:
            raise UsageError(
                f"a view has a size, two rising shares, four colours and two rising deviations; got {size}, "
                f"{list(crop)}, {list(colours)}, {list(blur)}"
            )
        self.size, self.crop, self.colours, self.coloured = size, crop, colours, coloured
        self.grey, self.blurred, self.blur, self.mirrored = grey, blurred, blur, mirrored

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        height, width = image.shape[1:]
        area = uniform(generator, *self.crop) * height * width
        ratio = math.exp(uniform(generator, -RATIO, RATIO))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        rows, columns = min(height, max(1, rows)), min(width, max(1, columns))
        top, left = whole(generator, 0, height - rows), whole(generator, 0, width - columns)
        piece = image[:, top : top + rows, left : left + columns]
        view = T.resize(piece, [self.size, self.size], antialias=True).clamp(0, 1)
        if happens(generator, self.mirrored):
            view = view.flip(2)
        if happens(generator, self.coloured):
            view = jitter(view, self.colours, generator)
        if happens(generator, self.grey):
            view = T.rgb_to_grayscale(view, 3)
        if happens(generator, self.blurred):
            deviation = uniform(generator, *self.blur)
            view = T.gaussian_blur(view, 2 * math.ceil(3 * deviation) + 1, deviation)
        return view
