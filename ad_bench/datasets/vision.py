"""VISION (Bai et al., arXiv:2306.07890): 14 supervised inspection sets with outlined defects.

<category>/{train,val}/ hold images and a COCO file, _annotations.coco.json; the images of inference/ have no
published annotation and are not listed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ad_bench.datasets.files import described
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Polygons, Sample

ANNOTATIONS = "_annotations.coco.json"
SPLITS: tuple[tuple[str, Literal["train", "test"]], ...] = (("train", "train"), ("val", "test"))
POINTS = 6  # numbers of the smallest outline, a triangle


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every annotated image of a category, train before test (the official val), in name order.

    An image with several kinds of defects is named by all of them, `a+b`; one without any is normal.
    """
    root = Path(root)
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({root} is: {described(root)}); that folder should hold "
            "train, val and inference"
        )
    for folder, split in SPLITS:
        if not (home / folder).is_dir():
            raise DataError(
                f"no folder {folder} in {home} ({described(home)}); the layout is {category}/{{train,val}}/ "
                f"with the images and {ANNOTATIONS}: unpack {category}.tar.gz again"
            )
        yield from sorted(_split(root, category, home / folder, split), key=lambda sample: sample.name)


def _split(root: Path, category: str, folder: Path, split: Literal["train", "test"]) -> list[Sample]:
    path = _annotations(folder)
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; unpack {category}.tar.gz again") from error
    found, gone = [], []
    try:
        kinds = {kind["id"]: str(kind["name"]) for kind in coco["categories"]}
        marked: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in coco["annotations"]:
            marked[annotation["image_id"]].append(annotation)
        for entry in coco["images"]:
            image = folder / str(entry["file_name"])
            if not image.is_file():
                gone.append(str(image))
                continue
            name = image.relative_to(root).as_posix()
            defects = marked[entry["id"]]
            if not defects:
                found.append(Sample(image, name, category, split, NORMAL))
                continue
            defect = "+".join(sorted({kinds[one["category_id"]] for one in defects}))
            outlines = Polygons(tuple(o for one in defects for o in _outlines(one, path, name)))
            found.append(Sample(image, name, category, split, ANOMALOUS, defect, outlines))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no COCO file ({type(error).__name__}: {error}); wanted images, annotations and "
            f"categories: unpack {category}.tar.gz again"
        ) from error
    if gone:
        raise DataError(
            f"{path} lists {gone[0]}{f' and {len(gone) - 1} more' * (len(gone) > 1)}, which is not there; "
            f"unpack {category}.tar.gz again"
        )
    return found


def _annotations(folder: Path) -> Path:
    """The COCO file of a split: by its usual name, else the only JSON file."""
    files = sorted(path for path in folder.glob("*.json") if path.name[0] != ".")
    named = [path for path in files if path.name == ANNOTATIONS] or files
    if len(named) != 1:
        raise DataError(
            f"no {ANNOTATIONS} in {folder}, and {len(files)} other JSON files; wanted the COCO file of the "
            "split: unpack the archive again"
        )
    return named[0]


def _outlines(annotation: Mapping[str, Any], path: Path, name: str) -> Iterator[tuple[float, ...]]:
    """The outlines of one defect; those of fewer than three points, which enclose nothing, are left out."""
    outlines = annotation["segmentation"]
    if not isinstance(outlines, list):
        raise DataError(
            f"{path}: a defect of {name} has a {type(outlines).__name__} as segmentation; wanted a list of "
            "outlines x0, y0, x1, y1, ...: run-length masks are not part of VISION, unpack the archive again"
        )
    for outline in outlines:
        if len(outline) >= POINTS:
            yield tuple(float(number) for number in outline)
