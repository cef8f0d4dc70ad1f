"""Small trees in the official layout of each data set: `make(root)` of the module of its id."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from ad_bench.datasets.dataset import DataSet

BOX = (slice(12, 24), slice(16, 36))  # rows and columns of the planted defect


def image(path: Path, defect: bool = False, size: tuple[int, int] = (48, 64), mode: str = "RGB") -> Path:
    """Write a smooth texture of its own, (height, width); `defect` plants a bright square in `BOX`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    y, x = np.mgrid[: size[0], : size[1]]
    grey = 110 + 30 * np.sin(x / 5 + draw.uniform(0, 6)) + 20 * np.cos(y / 7) + draw.normal(0, 4, size)
    if defect:
        grey[BOX] = 235
    pixels = np.clip(grey, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(
    path: Path, value: int = 255, size: tuple[int, int] = (48, 64), empty: bool = False, mode: str = "L"
) -> Path:
    """Write a mask of grey `value` in `BOX` and 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    if not empty:
        pixels[BOX] = value
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def described(name: str, root: Path) -> DataSet:
    """The data set of conf/dataset/<name>.yaml at `root`."""
    own = OmegaConf.load(Path(__file__).resolve().parents[3] / f"conf/dataset/{name}.yaml")
    config = OmegaConf.create({"paths": {"data": "data"}, "dataset": own})
    config.dataset.root = str(root)
    return DataSet.from_config(config.dataset)
