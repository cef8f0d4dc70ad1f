"""MVTec AD 2: two categories in their proportions, one of them grey; the private images have no truth."""

from pathlib import Path

from tests.datasets.trees import image, mask

SHAPES = {"can": (48, 104), "vial": (76, 56)}
LIGHTS = ("regular", "overexposed")


def make(root: Path) -> None:
    for category, size in SHAPES.items():
        home, mode = root / category, "L" if category == "vial" else "RGB"
        for index in range(3):
            image(home / f"train/good/{index:03}_regular.png", size=size, mode=mode)
        for index in range(2):
            image(home / f"validation/good/{index:03}_regular.png", size=size, mode=mode)
        for light in LIGHTS:
            image(home / f"test_public/good/000_{light}.png", size=size, mode=mode)
            image(home / f"test_public/bad/000_{light}.png", defect=True, size=size, mode=mode)
            mask(home / f"test_public/ground_truth/bad/000_{light}_mask.png", size=size)
            image(home / f"test_private/000_{light}.png", size=size, mode=mode)
            image(home / f"test_private_mixed/000_{light}.png", size=size, mode=mode)
    (root / "readme.txt").write_text("MVTec AD 2\n")
