"""Eyecandies: two categories with all files of an image; numbers have as many digits as the split needs."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.trees import image, mask

SIZE = (64, 64)
KINDS = ("bumps", "colors", "dents", "normals")
TESTS = {  # of a public test image: its kinds of anomalies
    "00": ("bumps",),
    "01": (),
    "02": ("colors", "dents"),
    "03": (),
}


def make(root: Path) -> None:
    for category in ("CandyCane", "Lollipop"):
        home = root / category
        for number in ("000", "001", "002"):
            files(home / "train" / "data", number)
        files(home / "val" / "data", "00")
        for number, kinds in TESTS.items():
            files(home / "test_public" / "data", number, kinds)
        files(home / "test_private" / "data", "000", public=False)  # 400 images: three digits too


def files(data: Path, number: str, kinds: tuple[str, ...] = (), public: bool = True) -> None:
    """All that there is of one image; `public` is False for what the private test set keeps back."""
    for light in range(6):
        image(data / f"{number}_image_{light}.png", defect=bool(kinds), size=SIZE)
    image(data / f"{number}_normals.png", size=SIZE)
    depth = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16)
    Image.fromarray(depth).save(data / f"{number}_depth.png")
    (data / f"{number}_info_depth.yaml").write_text("normalization:\n  max: 2.1\n  min: 1.2\n")
    np.savetxt(data / f"{number}_pose.txt", np.eye(4))
    if not public:
        return
    for kind in KINDS:
        mask(data / f"{number}_{kind}_mask.png", size=SIZE, empty=kind not in kinds)
    mask(data / f"{number}_mask.png", size=SIZE, empty=not kinds)
    flags = "".join(f"{kind}: {int(kind in kinds)}\n" for kind in KINDS)
    (data / f"{number}_metadata.yaml").write_text(f"anomalous: {int(bool(kinds))}\n{flags}")
