"""Steel pipe welds: images of several sizes, YOLO's text files; none is normal."""

from pathlib import Path

from tests.datasets.trees import BOX, image

ROWS, COLUMNS = BOX
IMAGES = {
    "train2021": {"air-hole1-13": (0,), "crack043": (3,), "broken-arc3(air-hole)-282": (2, 0)},
    "val2021": {"unfused29": (7,), "air-hole10-026": (0, 0)},
}


def make(root: Path) -> None:
    for split, stems in IMAGES.items():
        for index, (stem, kinds) in enumerate(stems.items()):
            home = root / "steel-tube-dataset-all" / "yolo"
            height, width = size = (48 + 8 * index, 64 + 16 * index)
            image(home / "images" / split / f"{stem}.jpg", defect=True, size=size)
            x, y = (COLUMNS.start + COLUMNS.stop) / 2 / width, (ROWS.start + ROWS.stop) / 2 / height
            w, h = (COLUMNS.stop - COLUMNS.start) / width, (ROWS.stop - ROWS.start) / height
            label = home / "labels" / split / f"{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for kind in kinds))
