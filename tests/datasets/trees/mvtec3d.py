"""MVTec 3D-AD: two categories of different shape, points beside every image, masks from 253 to 255."""

from pathlib import Path

import numpy as np
import tifffile

from tests.datasets.trees import image, mask

KINDS = {"bagel": ("combined", "hole"), "rope": ("cut",)}
SIZES = {"bagel": (64, 64), "rope": (40, 90)}
TRAIN, VALIDATION, GOOD, EACH = 3, 2, 2, 3


def make(root: Path) -> None:
    for category, kinds in KINDS.items():
        for split, kind, count in (
            ("train", "good", TRAIN),
            ("validation", "good", VALIDATION),
            ("test", "good", GOOD),
            *(("test", kind, EACH) for kind in kinds),
        ):
            for index in range(count):
                scan(root / category / split / kind, f"{index:03}", kind != "good", SIZES[category])
                if split != "train":
                    home = root / category / split / kind / "gt"
                    mask(home / f"{index:03}.png", 253 + index, SIZES[category], empty=kind == "good")
        calibration = root / category / "calibration"
        calibration.mkdir()
        (calibration / "camera_parameters.json").write_text("{}")


def scan(folder: Path, stem: str, defect: bool, size: tuple[int, int]) -> None:
    image(folder / "rgb" / f"{stem}.png", defect=defect, size=size)
    (folder / "xyz").mkdir(exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    points = np.stack([x / 1000, y / 1000, np.full(size, 0.5, np.float32)], axis=2)
    points[:2] = 0  # missing
    tifffile.imwrite(folder / "xyz" / f"{stem}.tiff", points, photometric="rgb")
