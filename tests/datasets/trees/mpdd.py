"""MPDD: two categories in MVTec AD's layout."""

from pathlib import Path

from tests.datasets.trees import image, mask

KINDS = {"bracket_black": ("hole", "scratches"), "tubes": ("anomalous",)}


def make(root: Path) -> None:
    for category, kinds in KINDS.items():
        home = root / category
        for index in range(3):
            image(home / f"train/good/{index:03}.png", size=(64, 64))
        for index in range(2):
            image(home / f"test/good/{index:03}.png", size=(64, 64))
            for kind in kinds:
                image(home / f"test/{kind}/{index:03}.png", defect=True, size=(64, 64))
                mask(home / f"ground_truth/{kind}/{index:03}_mask.png", size=(64, 64))
