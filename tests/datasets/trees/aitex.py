"""AITEX: rolls of normal strips, anomalous strips of three kinds, one with two masks and one without any."""

from pathlib import Path

from tests.datasets.trees import image, mask

STRIP = (32, 512)  # 16:1 as distributed
ROLLS = {"2306881-210020u": "02", "2311694-2040n7u": "04"}


def make(root: Path) -> None:
    for roll, fabric in ROLLS.items():
        for index in range(5):
            image(root / f"NODefect_images/{roll}/{index:04}_000_{fabric}.png", size=STRIP, mode="L")
    for stem in ("0001_002_00", "0044_019_04", "0097_030_03", "0100_025_08"):
        image(root / f"Defect_images/{stem}.png", defect=True, size=STRIP, mode="L")
    mask(root / "Mask_images/0001_002_00_mask.png", size=STRIP)
    for stem in ("0044_019_04", "0097_030_03"):
        mask(root / f"Mask_images/{stem}_mask1.png", size=STRIP, empty=True)
        mask(root / f"Mask_images/{stem}_mask2.png", size=STRIP)
