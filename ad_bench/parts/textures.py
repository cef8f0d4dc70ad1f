"""Textures that belong to no inspected product: pictures of a folder, or made where there is none.

Papers blend pictures of the Describable Textures Dataset (Cimpoi et al., CVPR 2014) into normal images. Its
folder `dtd/images` serves as it is, as does any other with pictures. Without one, textures are made: octaves
of Perlin noise, stripes, checkers, dots or a plain colour, one in five each.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ad_bench.errors import DataError, UsageError
from ad_bench.parts.chance import uniform, whole
from ad_bench.parts.distort import rotate
from ad_bench.parts.perlin import random_noise

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Textures:
    """`folder` and all below it; None: made. UsageError for a folder that is missing or holds no picture."""

    def __init__(self, folder: str | None):
        self.files: list[Path] = []
        if folder is None:
            return
        self.root = Path(folder).expanduser()
        if self.root.is_dir():
            self.files = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not self.files:
            wrong = "no pictures below it" if self.root.is_dir() else "no such folder"
            raise UsageError(
                f"textures={folder}: {wrong}. Give a folder with files of {', '.join(SUFFIXES)}, such as "
                "dtd/images, or null for made textures"
            )

    def __str__(self) -> str:
        """For the record: "procedural", or how many pictures and a hash of their names and sizes."""
        if not self.files:
            return "procedural"
        listing = hashlib.sha256()
        for path in self.files:
            listing.update(f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n".encode())
        return f"{len(self.files)} pictures, {listing.hexdigest()[:12]}"

    def draw(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(3, *size) in [0, 1], on the CPU: a picture squeezed to that size, or a made texture."""
        if not self.files:
            return procedural(size, generator)
        picture = _read(self.files[whole(generator, 0, len(self.files) - 1)])
        return F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False)[0]


def procedural(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(3, *size) in [0, 1]: one of five kinds, each equally likely."""
    kind = whole(generator, 0, 4)
    if kind == 0:
        return cloudy(size, generator)
    if kind == 1:
        return torch.rand(3, 1, 1, generator=generator).expand(3, *size).clone()
    return patterned(size, generator, ("stripes", "checkers", "dots")[kind - 2])


def cloudy(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Each channel a sum of 2 to 5 octaves of noise, the next of half the strength; stretched to [0, 1]."""
    first, total = whole(generator, 0, 3), torch.zeros(3, *size)
    for octave in range(whole(generator, 2, 5)):
        cells = 2 ** (first + octave)
        total += random_noise(size, (cells, cells), generator, count=3) / 2**octave
    low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    return (total - low) / (high - low)


def patterned(size: tuple[int, int], generator: torch.Generator, kind: str) -> Tensor:
    """Two colours in stripes, checkers or dots, 4 to 32 pixels apart at 256, in any direction."""
    period = uniform(generator, 4, 32) * max(size) / 256
    side = math.ceil(math.hypot(*size)) + 2  # a square that holds the image however it is turned
    place = torch.arange(side) / period
    phase = 2 * math.pi * place
    if kind == "stripes":
        field = (0.5 + 0.5 * torch.sin(phase)).expand(side, side)
    elif kind == "checkers":
        parity = (2 * place).floor().long()
        field = ((parity[:, None] + parity) % 2).float()
    else:
        offset = place - place.floor() - 0.5
        field = (offset[:, None] ** 2 + offset**2 < uniform(generator, 0.15, 0.45) ** 2).float()
    turned = rotate(field[None], uniform(generator, 0, 180))[0]
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    weight = turned[top : top + size[0], left : left + size[1]]
    one, other = torch.rand(2, 3, 1, 1, generator=generator)
    return one + (other - one) * weight


def _read(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]; DataError for what cannot be read."""
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"the texture {path} cannot be read ({error}); fetch it again or remove it"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
