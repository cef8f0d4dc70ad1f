"""VisA (Zou et al., ECCV 2022): <category>/Data/{Images,Masks}/{Normal,Anomaly} and split_csv/1cls.csv.

Also the copy that its prepare_data.py, or anomalib, rearranges to MVTec AD's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ad_bench.datasets import mvtec
from ad_bench.datasets.annotations import csv_rows, inside
from ad_bench.datasets.files import described, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
REARRANGED = ("1cls", "visa_pytorch", "VisA_pytorch/1cls", ".")
DEFECT = "bad"  # what prepare_data.py calls all of them: the split file tells no kinds


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image of a category as the official one-class split has it, train before test, in name order.

    Masks hold the number of the kind of defect, so that any value above 0 is one.
    """
    root = Path(root)
    if (root / category / "Data").is_dir():
        yield from _official(root, category)
        return
    for folder in REARRANGED:
        if (root / folder / category / "train" / "good").is_dir():
            for sample in mvtec.samples(root / folder, category):
                yield replace(sample, name=sample.image.relative_to(root).as_posix())
            return
    if (root / category).is_dir():
        raise DataError(
            f"no folder Data in {root / category} ({described(root / category)}); the layout is "
            f"{category}/Data/Images, or train, test and ground_truth as prepare_data.py writes them"
        )
    raise CategoryMissing(f"no category '{category}' at {root / category} ({described(root)})")


def _official(root: Path, category: str) -> Iterator[Sample]:
    table = root / SPLIT
    if not table.is_file():
        raise DataError(
            f"no {table}, which says what trains and what tests; copy split_csv from VisA's repository"
        )
    found: dict[str, list[Sample]] = {"train": [], "test": []}
    absent, bare = [], []
    for where, row in csv_rows(table, COLUMNS):
        if row["object"] != category:
            continue
        if row["split"] not in found or row["label"] not in ("normal", "anomaly"):
            raise DataError(
                f"{where} has the split '{row['split']}' and the label '{row['label']}'; wanted train or "
                "test, and normal or anomaly: copy the table from the repository again"
            )
        split, name = row["split"], row["image"]
        image = inside(root, name, where)
        if not image.is_file():
            absent.append(image)
        elif row["label"] == "normal":
            found[split].append(Sample(image, name, category, split, NORMAL))  # type: ignore[arg-type]
        else:
            mask = inside(root, row["mask"], where)
            if not mask.is_file():
                bare.append((str(image), str(mask)))
            found[split].append(
                Sample(image, name, category, split, ANOMALOUS, DEFECT, MaskFiles((mask,)))  # type: ignore[arg-type]
            )
    if absent:
        raise DataError(
            f"'{category}': {len(absent)} images of {table} are not there, first {absent[0]}; unpack the "
            "archive again"
        )
    if bare:
        raise missing_masks(category, bare)
    for listed in found.values():
        yield from sorted(listed, key=lambda sample: sample.name)
