"""NanoTWICE: grey TIFF images, and a PNG mask for every anomalous one."""

from pathlib import Path

from tests.datasets.trees import image, mask


def make(root: Path) -> None:
    for index in range(3):
        image(root / "Normal" / f"ER_N{index}.tif", mode="L")
    for index in range(4):
        image(root / "Anomalous" / "images" / f"ER_C{index}.tif", defect=True, mode="L")
        mask(root / "Anomalous" / "gt" / f"ER_C{index}_gt.png")
