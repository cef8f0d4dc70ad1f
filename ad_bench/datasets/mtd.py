"""Magnetic tile defects (Huang, Qiu, Yuan), in its repository's layout: MT_<class>/Imgs/<name>.{jpg,png}.

The JPEG is the image, the PNG of the same name its mask. The data set states no split; the one here is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, folders_in, images_in, missing_masks
from ad_bench.draws import training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

NORMAL_FOLDER = "MT_Free"


def samples(
    root: Path, category: str, train_share: float, split_seed: int, mask_above: int
) -> Iterator[Sample]:
    """Every tile, train before test, in name order.

    `train_share` of the defect-free tiles train, drawn by `split_seed` in a way that no library or platform
    changes; the rest and all defects test. Mask pixels count above `mask_above`: the masks have grey edges.
    """
    root = Path(root)
    if not (root / NORMAL_FOLDER).is_dir():
        raise CategoryMissing(
            f"no folder {NORMAL_FOLDER} in {root} ({described(root)}); that folder should hold MT_Free, "
            "MT_Blowhole, MT_Break, MT_Crack, MT_Fray and MT_Uneven"
        )
    free = {path.relative_to(root).as_posix(): path for path in _tiles(root / NORMAL_FOLDER)}
    drawn = training_share(free, train_share, split_seed, "mtd.split")
    for name in sorted(drawn):
        yield Sample(free[name], name, category, "train", NORMAL)
    tests = [Sample(free[name], name, category, "test", NORMAL) for name in free if name not in drawn]
    missing = []
    for folder in folders_in(root):
        if not folder.name.startswith("MT_") or folder.name == NORMAL_FOLDER:
            continue
        defect = folder.name.removeprefix("MT_").lower()
        for image in _tiles(folder):
            mask = image.with_suffix(".png")
            if not mask.is_file():
                missing.append((str(image), str(mask)))
                continue
            name = image.relative_to(root).as_posix()
            tests.append(
                Sample(image, name, category, "test", ANOMALOUS, defect, MaskFiles((mask,), mask_above))
            )
    if missing:
        raise missing_masks(category, missing)
    yield from sorted(tests, key=lambda sample: sample.name)


def _tiles(folder: Path) -> list[Path]:
    """The images of a class: the JPEGs, whose PNGs are masks."""
    home = folder / "Imgs"
    if not home.is_dir():
        raise DataError(
            f"no folder Imgs in {folder} ({described(folder)}); the layout is MT_<class>/Imgs/<name>.jpg"
        )
    return [path for path in images_in(home) if path.suffix.lower() in (".jpg", ".jpeg")]
