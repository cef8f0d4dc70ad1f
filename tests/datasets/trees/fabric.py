"""The fabric images of Hong Kong, laid out as scripts of ZJU-Leaper read them: three patterns, with masks."""

from pathlib import Path

from tests.datasets.trees import image, mask


def make(root: Path) -> None:
    for pattern in ("box", "dot", "star"):
        for index in range(6):
            image(root / f"{pattern}/normal/{pattern}_{index}.bmp")
        for index, kind in enumerate(("bn", "h")):
            name = f"{pattern}_{kind}_{index}.bmp"
            image(root / f"{pattern}/defective/{name}", defect=True)
            mask(root / f"{pattern}/defective/mask/{name}", mode="L")
