"""SSGD, smartphone screen glass (Han et al., ICASSP 2023): <part>/<image> and annotations_<part>/<part>.json.

Two parts, lb101 and lb201, with boxes in COCO's format. The folders of images hold XML files too, with other
names for the defects; they are not read. There is no training image that is known to be normal: all test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.annotations import Box, inside, json_object
from ad_bench.datasets.files import described
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Boxes, Sample

PARTS = ("lb101", "lb201")


def samples(root: Path, category: str, filled: bool) -> Iterator[Sample]:
    """Every annotated image, as a test image, in name order; one without a box is normal.

    `filled` counts every pixel of a box as defective. Images with several defects are crack+scratch.
    """
    root = Path(root)
    homes = [home for home in (root, root / "SSGD") if any((home / part).is_dir() for part in PARTS)]
    if not homes:
        raise CategoryMissing(
            f"no SSGD in {root} ({described(root)}); that folder should hold {' and '.join(PARTS)} with the "
            "images, annotations_lb101 and annotations_lb201"
        )
    tests = []
    for part in PARTS:
        folder, table = homes[0] / part, homes[0] / f"annotations_{part}" / f"{part}.json"
        for needed in (folder, table):
            if not needed.exists():
                raise DataError(f"no {needed} ({described(homes[0])}); SSGD has two parts: unpack both")
        for file, objects in _objects(table).items():
            image = inside(folder, file, str(table))
            if not image.is_file():
                raise DataError(f"no image {image}, which {table} names; unpack the archive again")
            name = image.relative_to(root).as_posix()
            if not objects:
                tests.append(Sample(image, name, category, "test", NORMAL))
                continue
            kinds = "+".join(sorted({kind for kind, _ in objects}))
            mask = Boxes(tuple(box for _, box in objects), filled)
            tests.append(Sample(image, name, category, "test", ANOMALOUS, kinds, mask))
    yield from sorted(tests, key=lambda sample: sample.name)


def _objects(table: Path) -> dict[str, list[tuple[str, Box]]]:
    """Kind and box of every defect, by the name of the image's file."""
    content = json_object(table)
    try:
        kinds = {kind["id"]: str(kind["name"]) for kind in content["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[str, list[tuple[str, Box]]] = {file: [] for file in files.values()}
        for annotation in content["annotations"]:
            left, top, width, height = (float(value) for value in annotation["bbox"])
            if not (width > 0 and height > 0 and math.isfinite(left + top + width + height)):
                raise ValueError(f"the bbox {annotation['bbox']} has no area")
            box = (left, top, left + width, top + height)
            found[files[annotation["image_id"]]].append((kinds[annotation["category_id"]], box))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{table} is not as COCO's annotations are: {type(error).__name__}: {error}; wanted images, "
            "categories, and annotations with image_id, category_id and bbox"
        ) from error
    return found
