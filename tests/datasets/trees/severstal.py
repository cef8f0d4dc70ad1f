"""Severstal: ten normal sheets, four with runs down the columns; the test images without labels."""

from pathlib import Path

from tests.datasets.trees import BOX, image

SIZE = (48, 300)  # 256x1600
ROWS, COLUMNS = BOX
NORMAL = [f"{number:09x}.jpg" for number in range(10)]
DEFECTS = {"0002cc93b.jpg": "1", "0007a71bf.jpg": "3", "000a4bcdd.jpg": "13", "000f6bf48.jpg": "4"}


def make(root: Path) -> None:
    sheets(root)
    lines = [f"{name},{number},{runs(number)}" for name, all_ in DEFECTS.items() for number in all_]
    (root / "train.csv").write_text("\n".join(["ImageId,ClassId,EncodedPixels", *lines]) + "\n")


def make_old(root: Path) -> None:
    """The older table: four rows an image."""
    sheets(root)
    names = sorted([*NORMAL, *DEFECTS])
    cells = [(name, number, number in DEFECTS.get(name, "")) for name in names for number in "1234"]
    lines = [f"{name}_{number},{runs(number) if there else ''}" for name, number, there in cells]
    (root / "train.csv").write_text("\n".join(["ImageId_ClassId,EncodedPixels", *lines]) + "\n")


def sheets(root: Path) -> None:
    for name in NORMAL:
        image(root / "train_images" / name, size=SIZE)
    for name in DEFECTS:
        image(root / "train_images" / name, defect=True, size=SIZE)
    image(root / "test_images" / "0000f269f.jpg", size=SIZE)
    (root / "sample_submission.csv").write_text("ImageId,EncodedPixels,ClassId\n0000f269f.jpg,1 1,1\n")


def runs(number: str) -> str:
    """`BOX`, for class 1 its left half, for 3 its right half: pixels count from 1, down the columns."""
    middle = (COLUMNS.start + COLUMNS.stop) // 2
    columns = range(middle if number == "3" else COLUMNS.start, middle if number == "1" else COLUMNS.stop)
    length = ROWS.stop - ROWS.start
    return " ".join(f"{column * SIZE[0] + ROWS.start + 1} {length}" for column in columns)
