"""Severstal: Steel Defect Detection (Kaggle, 2019): train_images/*.jpg, train.csv with runs of defect pixels.

Images without a run are normal. The competition's test_images have no public labels and are left out. The
competition states no one-class split; the one here is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.annotations import csv_rows
from ad_bench.datasets.files import described, images_in
from ad_bench.draws import training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, RunLengths, Sample

IMAGES, TABLE = "train_images", "train.csv"
# A row for each defect class of an image; in older copies four rows for every image, most of them empty.
NEW, OLD = ("ImageId", "ClassId", "EncodedPixels"), ("ImageId_ClassId", "EncodedPixels")
CLASSES = ("1", "2", "3", "4")

Runs = tuple[tuple[int, int], ...]


def samples(root: Path, category: str, train_share: float, split_seed: int) -> Iterator[Sample]:
    """Every labelled sheet, train before test, in name order.

    `train_share` of the normal ones train, drawn by `split_seed` in a way that no library or platform
    changes; the rest and all defects test. The defect of an image with several classes is class_1+class_3.
    """
    root = Path(root)
    if not (root / IMAGES).is_dir():
        raise CategoryMissing(f"no folder {IMAGES} in {root} ({described(root)}); it belongs beside {TABLE}")
    if not (root / TABLE).is_file():
        raise DataError(f"no {root / TABLE} ({described(root)}); it says what is a defect: unpack it there")
    images = {path.name: path for path in images_in(root / IMAGES)}
    defects = _defects(root / TABLE)
    absent = sorted(defects.keys() - images.keys())
    if absent:
        raise DataError(
            f"{len(absent)} images of {root / TABLE} are not in {root / IMAGES}, first {absent[0]}; unpack "
            "train_images.zip again"
        )
    normal = [name for name in images if name not in defects]
    drawn = training_share(normal, train_share, split_seed, "severstal.split")
    for split in ("train", "test"):
        for name, image in images.items():
            if (name in drawn) != (split == "train"):
                continue
            path = f"{IMAGES}/{name}"
            if name not in defects:
                yield Sample(image, path, category, split, NORMAL)
                continue
            by_class = defects[name]
            mask = RunLengths(tuple(run for number in sorted(by_class) for run in by_class[number]))
            kinds = "+".join(f"class_{number}" for number in sorted(by_class))
            yield Sample(image, path, category, split, ANOMALOUS, kinds, mask)


def _defects(table: Path) -> dict[str, dict[str, Runs]]:
    """The runs by image and defect class."""
    found: defaultdict[str, dict[str, Runs]] = defaultdict(dict)
    for where, row in csv_rows(table, NEW, OLD):
        if "ImageId" in row:
            name, number = row["ImageId"], row["ClassId"]
        else:
            name, _, number = row["ImageId_ClassId"].rpartition("_")
        if not name or number not in CLASSES or number in found.get(name, {}):
            raise DataError(
                f"{where} is image '{name}', class '{number}'; wanted one row an image and class, classes "
                f"{', '.join(CLASSES)}: fetch the table again"
            )
        if row["EncodedPixels"].strip():
            found[name][number] = _runs(row["EncodedPixels"], where)
    return dict(found)


def _runs(text: str, where: str) -> Runs:
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError as error:
        raise DataError(f"{where}: {error}; wanted whole numbers, start and length in turn") from error
    if len(numbers) % 2:
        raise DataError(f"{where} has {len(numbers)} numbers; wanted pairs of start and length")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
