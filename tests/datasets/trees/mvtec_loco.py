"""MVTec LOCO AD: two categories of different shape; some images have several masks, one for each defect."""

import json
from pathlib import Path

from tests.datasets.trees import image, mask

SIZES = {"breakfast_box": (64, 80), "juice_bottle": (96, 48)}
# name, grey value, saturation threshold, whether it is a share of the area
DEFECTS = (
    ("missing_almonds", 255, 100, False),
    ("damaged_fruit", 254, 1.0, True),
    ("swapped", 253, 0.5, True),
)
KEYS = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
MASKS = {  # grey values of the masks of each image, by kind
    "structural_anomalies": [(254,), (254, 254)],
    "logical_anomalies": [(255,), (255, 253)],
}


def make(root: Path) -> None:
    for category, size in SIZES.items():
        home = root / category
        for split, count in (("train", 3), ("validation", 2), ("test", 2)):
            for index in range(count):
                image(home / split / "good" / f"{index:03}.png", size=size)
        for kind, images in MASKS.items():
            for index, values in enumerate(images):
                image(home / "test" / kind / f"{index:03}.png", defect=True, size=size)
                for number, value in enumerate(values):
                    mask(home / "ground_truth" / kind / f"{index:03}" / f"{number:03}.png", value, size)
        (home / "defects_config.json").write_text(
            json.dumps([dict(zip(KEYS, defect, strict=True)) for defect in DEFECTS])
        )
        for name in ("license.txt", "readme.txt"):
            (home / name).write_text("MVTec LOCO AD\n")
