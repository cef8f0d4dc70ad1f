"""KolektorSDD2: a few images of each split, masks for all of them, and the two files that come twice."""

from pathlib import Path

from tests.datasets.trees import image, mask

SIZE = (63, 44)
NUMBERS = {"train": (10000, 10001, 10002, 10003, 10301), "test": (20000, 20001, 20002, 20003)}
DEFECTIVE = {10003, 20001, 20003}


def make(root: Path) -> None:
    for split, numbers in NUMBERS.items():
        for number in numbers:
            defect = number in DEFECTIVE
            image(root / f"{split}/{number}.png", defect=defect, size=SIZE)
            mask(root / f"{split}/{number}_GT.png", size=SIZE, empty=not defect)
    for end in ("", "_GT"):
        copy = root / f"train/10301{end} (copy).png"
        copy.write_bytes((root / f"train/10301{end}.png").read_bytes())
