"""DAGM 2007 (Wieler, Hahn, Hamprecht): ten textures with weak labels, ellipses that cover the defects.

Two distributions are read. The whole one (Heidelberg, Zenodo, Kaggle) has Class1 to Class10 with Train and
Test, and the ellipses drawn in Label/<stem>_label.PNG. The competition's own has normal images in Class1 to
Class6, anomalous ones in Class1_def to Class6_def, and the ellipses in labels.txt; its split is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, images_in, missing_masks
from ad_bench.draws import check_share, training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Ellipses, MaskFiles, Sample

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


def samples(
    root: Path, category: str, train_share: float, split_seed: int, mask_above: int
) -> Iterator[Sample]:
    """Every image of a class, train before test, in name order; anomalous ones are in both splits.

    `train_share` and `split_seed` draw the split of the competition's distribution, which has none: the share
    is taken of the normal and of the anomalous images.
    """
    root = Path(root)
    check_share(train_share)  # also where the split is given
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({described(root)}); that folder should hold Train and "
            f"Test, or normal images beside a folder {category}_def"
        )
    if (home / "Train").is_dir() or (home / "Test").is_dir():
        yield from _whole(root, category, mask_above)
    elif (root / f"{category}_def").is_dir():
        yield from _competition(root, category, train_share, split_seed)
    else:
        raise DataError(
            f"neither Train and Test in {home} ({described(home)}) nor a folder {category}_def beside it; "
            "unpack the archive again, or set dataset.root to the folder that holds Class1"
        )


def _whole(root: Path, category: str, mask_above: int) -> Iterator[Sample]:
    """What has a label image, or is flagged in Labels.txt, is anomalous."""
    for split in SPLITS:
        home = root / category / split.capitalize()
        labels = home / "Label"
        if not labels.is_dir():
            raise DataError(
                f"no folder Label in {home} ({described(home)}); it tells the anomalous images from the "
                "normal ones: unpack the archive again"
            )
        masks = {path.stem.removesuffix("_label"): path for path in images_in(labels)}
        flagged = _flagged(labels / "Labels.txt")
        listed, missing = [], []
        for image in images_in(home):
            name = image.relative_to(root).as_posix()
            if image.stem in masks:
                mask = MaskFiles((masks[image.stem],), mask_above)
                listed.append(Sample(image, name, category, split, ANOMALOUS, "defect", mask))
            elif image.stem in flagged:
                missing.append((str(image), str(labels / f"{image.stem}_label.PNG")))
            else:
                listed.append(Sample(image, name, category, split, NORMAL))
        if missing:
            raise missing_masks(category, missing)
        yield from listed


def _flagged(table: Path) -> set[str]:
    """Stems of the images that Labels.txt calls defective: number, 0 or 1, file and more, between tabs."""
    if not table.is_file():
        return set()  # not in every copy; the label images say the same
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8", errors="replace").splitlines()]
    return {Path(row[2]).stem for row in rows if len(row) > 2 and row[1].strip() == "1"}


def _competition(root: Path, category: str, train_share: float, split_seed: int) -> Iterator[Sample]:
    """Normal images <category>/N.png, anomalous ones <category>_def/N.png, N as in labels.txt."""
    defects = root / f"{category}_def"
    table = defects / "labels.txt"
    if not table.is_file():
        raise DataError(
            f"no labels.txt in {defects} ({described(defects)}); it holds the ellipses of the defects: "
            "unpack the archive again"
        )
    ellipses = _ellipses(table)
    listed = {}
    for folder in (root / category, defects):
        images = {image.relative_to(root).as_posix(): image for image in images_in(folder)}
        drawn = training_share(images, train_share, split_seed, "dagm.split")
        for name, image in images.items():
            split: Literal["train", "test"] = "train" if name in drawn else "test"
            if folder is not defects:
                listed[name] = Sample(image, name, category, split, NORMAL)
                continue
            number = image.stem.lstrip("0")
            if number not in ellipses:
                raise DataError(f"no line for {image} in {table}; unpack the archive again")
            mask = Ellipses((ellipses[number],))
            listed[name] = Sample(image, name, category, split, ANOMALOUS, "defect", mask)
    for split in SPLITS:
        yield from (listed[name] for name in sorted(listed) if listed[name].split == split)


def _ellipses(table: Path) -> dict[str, tuple[float, float, float, float, float]]:
    """Number of the image -> centre x, y, half axes and angle in radians.

    A line is: number, the two half axes, angle, centre x, y. The angle runs from x towards y, y downwards.
    """
    found = {}
    for row, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not (parts := line.split()):
            continue
        try:
            first, second, angle, x, y = (float(part) for part in parts[1:6])
            found[str(int(float(parts[0])))] = (x, y, first, second, angle)
        except ValueError as error:
            raise DataError(
                f"{table}, line {row} is '{line.strip()}'; wanted the image's number, two half axes, an "
                "angle, x and y: unpack the archive again"
            ) from error
    return found
