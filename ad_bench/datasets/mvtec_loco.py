"""MVTec LOCO AD (Bergmann et al., IJCV 130, 2022): structural and logical anomalies.

<category>/{train,validation,test}/<kind>/000.png; the masks of an image lie in a folder of its name, one file
for each defect: <category>/ground_truth/<kind>/000/000.png. Their grey value stands in defects_config.json,
which says at what area a defect saturates (sPRO).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, folders_in, images_in, missing_masks
from ad_bench.datasets.masks import LOCO_CONFIG
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image of a category: train, validation, test, each in name order.

    A defect is named by its folder, structural_anomalies or logical_anomalies. A DataError says which masks
    are missing, and where defects_config.json is.
    """
    root = Path(root)
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({root} is: {described(root)}); that folder should hold "
            f"train, validation, test, ground_truth and {LOCO_CONFIG}"
        )
    config = home / LOCO_CONFIG
    if not config.is_file():
        raise DataError(
            f"no {config} ({home} is: {described(home)}); it says at what area a defect saturates: unpack "
            "the archive again"
        )
    for split in SPLITS:
        found, missing = [], []
        for folder in folders_in(home / split) if (home / split).is_dir() else ():
            kind = folder.name
            for image in images_in(folder):
                name = image.relative_to(root).as_posix()
                if kind == "good":
                    found.append(Sample(image, name, category, split, NORMAL))
                    continue
                truth = home / "ground_truth" / kind / image.stem
                masks = tuple(images_in(truth)) if truth.is_dir() else ()
                if not masks:
                    missing.append((str(image), str(truth / "000.png")))
                    continue
                mask = MaskFiles(masks, saturations=config)
                found.append(Sample(image, name, category, split, ANOMALOUS, kind, mask))
        if missing:
            raise missing_masks(category, missing)
        yield from found
