"""AeBAD: single blades under four test domains, frames of videos, and what macOS leaves in an archive."""

from pathlib import Path

from tests.datasets.trees import image, mask

DOMAINS = ("background", "illumination", "same", "view")
DEFECTS = ("ablation", "breakdown", "fracture", "groove")


def make(root: Path) -> None:
    single = root / "AeBAD_S"
    for domain in DOMAINS[:2] + DOMAINS[3:]:  # nothing trains under `same`
        for index in range(2):
            image(single / f"train/good/{domain}/IMG_{7100 + index}.png")  # names recur in the other folders
    for number, domain in enumerate(DOMAINS):
        for index in range(2):
            image(single / f"test/good/{domain}/IMG_{6100 + 10 * number + index}.png")
        for kind, defect in enumerate(DEFECTS):
            name = f"{defect}/{domain}/IMG_{5000 + 100 * number + kind}.png"
            image(single / "test" / name, defect=True)
            mask(single / "ground_truth" / name)
    (single / "train/good/view/._IMG_7100.png").write_bytes(b"\x00\x05\x16\x07")
    (single / "test/groove/view/.DS_Store").write_bytes(b"\x00")
    videos(root)


def videos(root: Path) -> None:
    """AeBAD_V alone."""
    home = root / "AeBAD_V"
    for video in ("video1", "video2"):
        for index in range(3):
            image(home / f"train/good/{video}_train/{index:05}.jpg")
        for index in range(2):
            image(home / f"test/{video}/good/{index:05}.jpg")
            image(home / f"test/{video}/anomaly/{index + 2:05}.jpg", defect=True)
