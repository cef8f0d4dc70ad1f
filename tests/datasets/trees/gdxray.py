"""GDXray: annotated and other series of castings and welds, and a group without defects."""

from pathlib import Path

from tests.datasets.trees import BOX, image, mask

ROWS, COLUMNS = BOX
# BOX as MATLAB draws it: counted from 1, the last pixel inside
X1, X2, Y1, Y2 = COLUMNS.start + 1, COLUMNS.stop, ROWS.start + 1, ROWS.stop


def make(root: Path) -> None:
    series(root / "Castings" / "C0001", defects=(1, 2), normal=(3, 4))
    series(root / "Castings" / "C0002", defects=(1, 10), normal=(), size=(40, 80))
    series(root / "Castings" / "C0003", defects=(), normal=(1, 2))  # not annotated
    series(root / "Welds" / "W0001", defects=(1, 2), normal=(3,), size=(40, 120))
    for number in (1, 2):
        mask(
            root / "Welds" / "W0002" / f"W0002_{number:04}.png", size=(40, 120)
        )  # what is defective in W0001
    series(root / "Baggages" / "B0001", defects=(1,), normal=())


def series(
    folder: Path, defects: tuple[int, ...], normal: tuple[int, ...], size: tuple[int, int] = (48, 64)
) -> None:
    for number in defects + normal:
        image(folder / f"{folder.name}_{number:04}.png", defect=number in defects, size=size, mode="L")
    rows = [(number, X1, X2, Y1, Y2) for number in defects]
    if rows:
        text = "".join("".join(f"{value:16.7e}" for value in row) + "\n" for row in rows)
        (folder / "ground_truth.txt").write_text(text)  # as MATLAB's save -ascii writes
