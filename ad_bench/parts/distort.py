"""Strong changes of colour, tone and direction, which make a texture or an image foreign.

The ten are those of VitjanZ/DRAEM at 2dbf673 (data_loader.py), where imgaug 0.4 makes them; that library has
not been kept since 2020, so torchvision does, and what it lacks stands here. Where imgaug draws a colour
space to brighten in, this is always YCbCr; grey pixels have no hue and stay grey when saturation is added.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.transforms.functional as T
from torch import Tensor

from ad_bench.errors import UsageError
from ad_bench.parts.chance import happens, uniform, whole

Distortion = Callable[[Tensor, torch.Generator], Tensor]


def rotate(image: Tensor, degrees: float) -> Tensor:
    """(C, H, W) turned about its centre, bilinear; zeros where nothing was."""
    return T.rotate(image, degrees, interpolation=T.InterpolationMode.BILINEAR)


def gamma(image: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel to a power of its own, 0.5 to 2."""
    power = torch.tensor([uniform(generator, 0.5, 2.0) for _ in image], device=image.device)
    return image.clamp(min=0) ** power[:, None, None]


def brightness(image: Tensor, generator: torch.Generator) -> Tensor:
    """The luma times 0.8 to 1.2, plus up to 30 grey levels either way."""
    luma = image.new_tensor([0.299, 0.587, 0.114]) @ image.flatten(1)
    change = luma * (uniform(generator, 0.8, 1.2) - 1) + uniform(generator, -30, 30) / 255
    return image + change.view(1, *image.shape[1:])


def sharpness(image: Tensor, generator: torch.Generator) -> Tensor:
    """Pillow's sharpness, 0 (smoothed) to 3."""
    return T.adjust_sharpness(image, uniform(generator, 0, 3))


def colour(image: Tensor, generator: torch.Generator) -> Tensor:
    """Hue turned and saturation raised or lowered, each by up to 50/255 of its range."""
    image = T.adjust_hue(image, uniform(generator, -50, 50) / 255)
    value = image.amax(0)
    saturation = 1 - image.amin(0) / value.clamp(min=1e-6)
    wanted = (saturation + uniform(generator, -50, 50) / 255).clamp(0, 1)
    return value - (value - image) * (wanted / saturation.clamp(min=1e-6))


def solarise(image: Tensor, generator: torch.Generator) -> Tensor:
    """In half of the cases: what is brighter than a threshold of 32 to 128 grey levels is inverted."""
    threshold = uniform(generator, 32, 128) / 255
    return T.solarize(image, threshold) if happens(generator, 0.5) else image


def posterise(image: Tensor, generator: torch.Generator) -> Tensor:
    """1 to 8 bits a channel."""
    return T.posterize(_bytes(image), whole(generator, 1, 8)).float() / 255


def invert(image: Tensor, generator: torch.Generator) -> Tensor:
    """The negative."""
    return 1 - image


def autocontrast(image: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel stretched to its full range, after the darkest and brightest 0 to 20 % are cut off."""
    rows, cut = image.flatten(1).sort(1).values, whole(generator, 0, 20) / 100
    last = rows.shape[1] - 1
    low, high = (rows[:, round(place * last), None, None] for place in (cut, 1 - cut))
    return torch.where(high > low, (image - low) / (high - low).clamp(min=1e-6), image)


def equalise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel's histogram made flat."""
    return T.equalize(_bytes(image)).float() / 255


def turn(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by up to 45 degrees."""
    return rotate(image, uniform(generator, -45, 45))


DISTORTIONS: tuple[Distortion, ...] = (
    gamma,
    brightness,
    sharpness,
    colour,
    solarise,
    posterise,
    invert,
    autocontrast,
    equalise,
    turn,
)


def distorted(image: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(3, H, W) in [0, 1] after `count` different DISTORTIONS, drawn with their order."""
    if not 0 <= count <= len(DISTORTIONS):
        raise UsageError(f"distortions is a number of 0 to {len(DISTORTIONS)}; got {count}")
    for index in torch.randperm(len(DISTORTIONS), generator=generator)[:count].tolist():
        image = DISTORTIONS[index](image, generator).clamp(0, 1)
    return image


def _bytes(image: Tensor) -> Tensor:
    return (image * 255).round().to(torch.uint8)
