"""MVTec 3D-AD (Bergmann et al., VISAPP 2022): colour images with a point for each pixel.

<category>/{train,validation,test}/<defect>/ hold rgb/000.png, xyz/000.tiff (points.py reads it) and, outside
of train, gt/000.png. The RGB images are listed, with their points as `extra`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, folders_in, images_in, masks_by_stem, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image of a category: train, validation, test, each in name order.

    A defect image without a mask is a DataError. The masks hold values from 253 to 255: all above 0 count.
    """
    root = Path(root)
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({root} is: {described(root)}); that folder should hold "
            "train, validation and test"
        )
    for split in SPLITS:
        folders = folders_in(home / split) if (home / split).is_dir() else []
        found, missing = [], []
        for folder in folders:
            if not (folder / "rgb").is_dir():
                raise DataError(
                    f"no folder rgb in {folder} ({described(folder)}); the layout is "
                    f"{category}/{split}/{folder.name}/{{rgb,xyz,gt}}/000.*"
                )
            label = NORMAL if folder.name == "good" else ANOMALOUS
            masks = masks_by_stem(folder / "gt") if label == ANOMALOUS else {}
            for image in images_in(folder / "rgb"):
                if label == ANOMALOUS and image.stem not in masks:
                    missing.append((str(image), str(folder / "gt" / f"{image.stem}.png")))
                    continue
                found.append(
                    Sample(
                        image,
                        image.relative_to(root).as_posix(),
                        category,
                        split,
                        label,
                        folder.name,
                        MaskFiles((masks[image.stem],)) if label == ANOMALOUS else None,
                        extra=(("points", folder / "xyz" / f"{image.stem}.tiff"),),
                    )
                )
        if missing:
            raise missing_masks(category, missing)
        yield from found
