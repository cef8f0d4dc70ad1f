"""BTAD: three products, whose images and masks end in .bmp and .png in three ways."""

from pathlib import Path

from tests.datasets.trees import image, mask

ENDINGS = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}  # of images, of masks


def make(root: Path) -> None:
    for product, (pictures, masks) in ENDINGS.items():
        home = root / product
        for index in range(4):
            image(home / f"train/ok/{index:04}.{pictures}")
        for index in range(2):
            image(home / f"test/ok/{index + 10:04}.{pictures}")
            image(home / f"test/ko/{index:04}.{pictures}", defect=True)
            # product 2 marks defects by 1, and one of product 3 is not marked at all
            empty = product == "03" and index == 1
            mask(
                home / f"ground_truth/ko/{index:04}.{masks}", value=1 if product == "02" else 255, empty=empty
            )
