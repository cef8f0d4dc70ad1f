"""Magnetic tiles: grey JPEGs of different shapes, masks with grey edges, black masks beside normal tiles."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.trees import BOX, image, mask

SHAPES = ((48, 64), (64, 48), (52, 90), (60, 60))
FREE = 10


def make(root: Path) -> None:
    tiles = [("Free", count) for count in range(FREE)]
    tiles += [
        (kind, count) for kind in ("Blowhole", "Break", "Crack", "Fray", "Uneven") for count in range(2)
    ]
    for number, (kind, count) in enumerate(tiles):
        size = SHAPES[number % len(SHAPES)]
        path = root / f"MT_{kind}" / "Imgs" / f"exp{number % 7}_num_{number * 37}.jpg"
        image(path, defect=kind != "Free", size=size, mode="L")
        mask(path.with_suffix(".png"), size=size, empty=kind == "Free" or (kind, count) == ("Uneven", 1))
        if kind == "Fray":
            _soften(path.with_suffix(".png"))
    (root / "README.md").write_text("Magnetic-tile-defect-datasets.\n")


def _soften(path: Path) -> None:
    """A rim of grey 90 around the marked pixels, as most masks of the repository have one."""
    pixels = np.array(Image.open(path))
    rows, columns = BOX
    rim = np.zeros_like(pixels)
    rim[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1] = 90
    Image.fromarray(np.maximum(pixels, rim)).save(path)
