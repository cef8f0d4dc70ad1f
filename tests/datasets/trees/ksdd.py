"""KolektorSDD: three commutators, a defect on one surface of each and black masks for the others."""

from pathlib import Path

from tests.datasets.trees import image, mask

SURFACE = (100, 40)  # 5:2 as distributed


def make(root: Path) -> None:
    for item in ("kos01", "kos02", "kos50"):
        for part in range(5):
            defect = part == 2
            size = (SURFACE[0] + part, SURFACE[1])  # heights differ
            image(root / f"{item}/Part{part}.jpg", defect=defect, size=size, mode="L")
            mask(root / f"{item}/Part{part}_label.bmp", size=size, empty=not defect)
