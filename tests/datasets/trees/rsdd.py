"""RSDDs: tall images, masks that are JPEGs of the same name; every image has a defect."""

from pathlib import Path

from tests.datasets.trees import image, mask

SIZES = {"Type-I RSDDs dataset": (250, 40), "Type-II RSDDs dataset": (625, 40)}  # 1000x160 and 1250x55


def make(root: Path) -> None:
    for folder, size in SIZES.items():
        for number in range(1, 4):
            image(root / folder / "Rail surface images" / f"rail_{number}.jpg", True, size, "L")
            mask(root / folder / "GroundTruth" / f"rail_{number}.jpg", 255, size)
