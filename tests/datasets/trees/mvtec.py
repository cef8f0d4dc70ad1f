"""MVTec AD: two categories, a texture and an object."""

from pathlib import Path

from tests.datasets.trees import image, mask

KINDS = {"bottle": ("broken_large", "contamination"), "grid": ("bent", "thread")}


def make(root: Path) -> None:
    for category, kinds in KINDS.items():
        home = root / category
        mode = "L" if category == "grid" else "RGB"  # grid, screw and zipper are grey
        for index in range(4):
            image(home / f"train/good/{index:03}.png", mode=mode)
        for index in range(2):
            image(home / f"test/good/{index:03}.png", mode=mode)
            for kind in kinds:
                image(home / f"test/{kind}/{index:03}.png", defect=True, mode=mode)
                mask(home / f"ground_truth/{kind}/{index:03}_mask.png")
        (home / "license.txt").write_text("CC BY-NC-SA 4.0\n")
        (home / "readme.txt").write_text("MVTec AD\n")
