"""SSGD: two parts with a COCO file each, its folds, and XML files with other names beside the images."""

import json
from pathlib import Path

from tests.datasets.trees import BOX, image

SIZE = (100, 150)  # 1000x1500
NAMES = ("crack", "broken", "spot", "scratch", "light-leakage", "blot", "broken-membrane")
ROWS, COLUMNS = BOX
LEFT, TOP, WIDTH, HEIGHT = COLUMNS.start, ROWS.start, COLUMNS.stop - COLUMNS.start, ROWS.stop - ROWS.start
KINDS = {"lb101": [(1,), (4,), (4, 1)], "lb201": [(7,), (3, 3)]}


def make(root: Path) -> None:
    for part, images in KINDS.items():
        listed, annotations = [], []
        for index, kinds in enumerate(images, 1):
            path = image(root / part / f"{part}_{index:04}.jpg", defect=True, size=SIZE)
            path.with_suffix(".xml").write_text(
                "<annotation><object><name>huahen</name></object></annotation>"
            )
            listed.append({"id": index, "file_name": path.name, "height": SIZE[0], "width": SIZE[1]})
            for kind in kinds:
                flat = [LEFT, TOP, LEFT + WIDTH, TOP, LEFT + WIDTH, TOP + HEIGHT, LEFT, TOP + HEIGHT]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": kind,
                        "bbox": [LEFT, TOP, WIDTH, HEIGHT],
                        "area": WIDTH * HEIGHT,
                        "segmentation": flat,  # the box again; a list of numbers, not of lists
                        "iscrowd": 0,
                        "ignore": 0,
                    }
                )
        categories = [{"name": name, "id": number} for number, name in enumerate(NAMES, 1)]
        folder = root / f"annotations_{part}"
        folder.mkdir()
        content = {"images": listed, "annotations": annotations, "categories": categories}
        for name in (part, "train1", "val1"):
            (folder / f"{name}.json").write_text(json.dumps(content))
