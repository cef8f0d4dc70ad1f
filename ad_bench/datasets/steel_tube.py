"""Steel pipe welds (Yang et al.): yolo/images/<split>/*.jpg and yolo/labels/<split>/*.txt.

X-ray images with boxes. The archive's PASCAL VOC half, Annotations and JPEGImages, is read where dataset.root
is the folder of these two. There are no normal images to train on; all test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ad_bench.datasets.annotations import Box, missing_annotations, read_text, voc_objects
from ad_bench.datasets.files import described, folders_in, images_in
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Boxes, Sample

DEFECTS = (
    "air-hole",
    "bite-edge",
    "broken-arc",
    "crack",
    "hollow-bead",
    "overlap",
    "slag-inclusion",
    "unfused",
)


def samples(root: Path, category: str, filled: bool) -> Iterator[Sample]:
    """Every image, as a test image, in name order; one without a box is normal.

    `filled` counts every pixel of a box as defective. Images with several defects are air-hole+crack. YOLO's
    boxes are shares of the image's size, so its header is read.
    """
    root = Path(root)
    tests, missing = [], []
    for image, annotation in sorted(_pairs(root)):
        if not annotation.is_file():
            missing.append((image, annotation))
            continue
        objects = voc_objects(annotation) if annotation.suffix == ".xml" else _yolo_objects(annotation, image)
        name = image.relative_to(root).as_posix()
        if not objects:
            tests.append(Sample(image, name, category, "test", NORMAL))
            continue
        kinds = "+".join(sorted({kind for kind, _ in objects}))
        mask = Boxes(tuple(box for _, box in objects), filled)
        tests.append(Sample(image, name, category, "test", ANOMALOUS, kinds, mask))
    if missing:
        raise missing_annotations(category, missing)
    yield from tests


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Every image and the file of its boxes, whether that is there or not."""
    for home in (root, root / "yolo", root / "steel-tube-dataset-all" / "yolo"):
        if (home / "images").is_dir() and (home / "labels").is_dir():
            return [
                (image, home / "labels" / folder.name / f"{image.stem}.txt")
                for folder in folders_in(home / "images")
                for image in images_in(folder)
            ]
    if (root / "JPEGImages").is_dir():
        images = images_in(root / "JPEGImages")
        return [(image, root / "Annotations" / f"{image.stem}.xml") for image in images]
    raise CategoryMissing(
        f"no steel pipe welds in {root} ({described(root)}); that folder should hold yolo/images and "
        "yolo/labels as steel-tube-dataset-all.zip does, or be the folder of JPEGImages and Annotations"
    )


def _yolo_objects(path: Path, image: Path) -> list[tuple[str, Box]]:
    """Kind and box of each line: the kind's number, then centre x and y, width and height as shares."""
    found: list[tuple[str, Box]] = []
    lines = [line.split() for line in read_text(path).splitlines()]
    if not any(lines):
        return found
    width, height = _size(image)
    for number, words in enumerate(lines, 1):
        if not words:
            continue
        try:
            kind = DEFECTS[int(words[0])] if words[0].isdigit() else None
            x, y, w, h = (float(word) for word in words[1:])
        except (IndexError, ValueError):
            kind = None
        if kind is None or not (w > 0 and h > 0 and math.isfinite(x + y + w + h)):
            raise DataError(
                f"{path}, line {number} is '{' '.join(words)[:80]}'; wanted a defect from 0 to "
                f"{len(DEFECTS) - 1} and the box's centre x, y, width and height as shares of the image"
            )
        left, top = (x - w / 2) * width, (y - h / 2) * height
        found.append((kind, (left, top, left + w * width, top + h * height)))
    return found


def _size(image: Path) -> tuple[int, int]:
    """Width and height by the file's header; its pixels stay unread."""
    try:
        with Image.open(image) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the size of {image}: {error}; fetch the file again") from error
