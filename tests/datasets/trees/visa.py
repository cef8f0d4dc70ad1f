"""VisA: two categories with their split file; masks hold the number of the kind of defect, at most 9."""

from pathlib import Path

from tests.datasets.trees import image, mask

CATEGORIES = ("candle", "pipe_fryum")


def make(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for kind, category in enumerate(CATEGORIES, 1):
        data = f"{category}/Data"
        # As in the true file, normal images are split without regard to their order.
        for number, split in (
            (3, "train"),
            (0, "train"),
            (4, "test"),
            (1, "train"),
            (2, "test"),
            (5, "train"),
        ):
            name = f"{data}/Images/Normal/{number:04}.JPG"
            image(root / name)
            rows.append(f"{category},{split},normal,{name},")
        for number in range(2):
            name, truth = f"{data}/Images/Anomaly/{number:03}.JPG", f"{data}/Masks/Anomaly/{number:03}.png"
            image(root / name, defect=True)
            mask(root / truth, value=kind)
            rows.append(f"{category},test,anomaly,{name},{truth}")
        (root / category / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode())


def make_rearranged(root: Path) -> None:
    """As the official prepare_data.py writes it: MVTec AD's layout below 1cls, masks of 0 and 255."""
    for category in CATEGORIES:
        home = root / "1cls" / category
        for number in range(3):
            image(home / "train" / "good" / f"{number:04}.JPG")
        for number in range(2):
            image(home / "test" / "good" / f"{number + 3:04}.JPG")
            image(home / "test" / "bad" / f"{number:03}.JPG", defect=True)
            mask(home / "ground_truth" / "bad" / f"{number:03}.png")
