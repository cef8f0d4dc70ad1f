"""MVTec AD, and every data set in its layout: train/good, test/<defect>, ground_truth/<defect>.

Bergmann et al., CVPR 2019 and IJCV 2021. Masks have the name of their image with `_mask` at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import folders_in, images_in, masks_by_stem, missing_masks
from ad_bench.errors import CategoryMissing
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image of a category, train before test, in name order.

    Suffixes may be any of the common ones in any case. A defect image without a mask is a DataError.
    """
    home = Path(root) / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home}; that folder should hold train, test, ground_truth"
        )
    good = home / "train" / "good"
    for image in images_in(good) if good.is_dir() else ():
        yield Sample(image, image.relative_to(root).as_posix(), category, "train", NORMAL)
    tests, missing = [], []
    for folder in folders_in(home / "test") if (home / "test").is_dir() else ():
        defect = folder.name
        truth = home / "ground_truth" / defect
        masks = masks_by_stem(truth) if defect != "good" else {}
        for image in images_in(folder):
            name = image.relative_to(root).as_posix()
            if defect == "good":
                tests.append(Sample(image, name, category, "test", NORMAL))
            elif image.stem in masks:
                mask = MaskFiles((masks[image.stem],))
                tests.append(Sample(image, name, category, "test", ANOMALOUS, defect, mask))
            else:
                missing.append((str(image), str(truth / f"{image.stem}_mask.png")))
    if missing:
        raise missing_masks(category, missing)
    yield from tests
