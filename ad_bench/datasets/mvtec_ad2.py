"""MVTec AD 2 (Heckler-Kram et al., arXiv:2503.21622), what of it has a public ground truth.

A category holds train/good, validation/good, test_public/{good,bad} and test_public/ground_truth/bad, the
masks named <image>_mask.png. The images of test_private and test_private_mixed are scored by the authors'
server alone and are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, images_in, masks_by_stem, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

FOLDER = "mvtec_ad_2"  # at the top of the archive
FITTED: tuple[Literal["train", "validation"], ...] = ("train", "validation")


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image of a category with a known label: train, validation, test, each in name order.

    `root` holds the categories or the folder mvtec_ad_2 of the archive. A defect image without a mask is a
    DataError.
    """
    root = Path(root)
    homes = [folder / category for folder in (root, root / FOLDER)]
    home = next((folder for folder in homes if folder.is_dir()), None)
    if home is None:
        raise CategoryMissing(
            f"no category '{category}' at {homes[0]} ({root} is: {described(root)}); that folder should hold "
            "train, validation and test_public"
        )
    if not (home / "test_public").is_dir():
        raise DataError(
            f"no folder test_public in {home} ({described(home)}); the layout is that of MVTec AD 2: train, "
            "validation, test_public. For the layout of MVTec AD use dataset=mvtec"
        )
    for split in FITTED:
        for image in _images(home / split / "good"):
            yield Sample(image, _name(root, image), category, split, NORMAL)
    truth = home / "test_public" / "ground_truth" / "bad"
    masks, tests, missing = masks_by_stem(truth), [], []
    for image in _images(home / "test_public" / "bad"):
        if image.stem in masks:
            mask = MaskFiles((masks[image.stem],))
            tests.append(Sample(image, _name(root, image), category, "test", ANOMALOUS, "bad", mask))
        else:
            missing.append((str(image), str(truth / f"{image.stem}_mask.png")))
    if missing:
        raise missing_masks(category, missing)
    yield from tests
    for image in _images(home / "test_public" / "good"):
        yield Sample(image, _name(root, image), category, "test", NORMAL)


def _images(folder: Path) -> list[Path]:
    return images_in(folder) if folder.is_dir() else []


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
