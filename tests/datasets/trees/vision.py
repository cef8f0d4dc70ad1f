"""VISION: two categories with COCO outlines; every annotated image has a defect."""

import json
from pathlib import Path

from tests.datasets.trees import BOX, image

KINDS = {"Casting": ("Inclusoes", "Rechupe"), "Ring": ("contamination", "unfinished_surface")}
ROWS, COLUMNS = BOX


def make(root: Path) -> None:
    for category, kinds in KINDS.items():
        for split in ("train", "val"):
            _split(root / category / split, category, kinds)
        image(root / category / "inference" / "000000.jpg")


def _split(folder: Path, category: str, kinds: tuple[str, ...]) -> None:
    images, annotations = [], []
    for index in range(4):
        name = f"{index:06}.jpg"
        image(folder / name, defect=True)
        images.append({"id": index, "file_name": name, "width": 64, "height": 48})
        for kind in range(2 if index == 3 else 1):  # the last image has both kinds
            left, top, right, bottom = COLUMNS.start + 8 * kind, ROWS.start, COLUMNS.stop - 1, ROWS.stop - 1
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": index,
                    "category_id": 1 + (index + kind) % 2,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 0, "name": category, "supercategory": "none"}]
    categories += [{"id": 1 + k, "name": kind, "supercategory": category} for k, kind in enumerate(kinds)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "_annotations.coco.json").write_text(text)
