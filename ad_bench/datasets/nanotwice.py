"""NanoTWICE (Carrera et al., IEEE Transactions on Industrial Informatics 13, 2017): nanofibres under an SEM.

Normal/*.tif, Anomalous/images/*.tif and the masks Anomalous/gt/<image>_gt.png. The normal images train.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, images_in, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

NORMAL_FOLDER, ANOMALOUS_FOLDER = "Normal", "Anomalous"
DEFECT = "anomalous"  # specks of dust, flattened areas: the kinds are not told apart


def samples(root: Path, category: str) -> Iterator[Sample]:
    """Every image, train before test, in name order; all test images are anomalous and need a mask."""
    root = Path(root)
    if not (root / NORMAL_FOLDER).is_dir():
        raise CategoryMissing(
            f"no folder {NORMAL_FOLDER} in {root} ({described(root)}); that folder should hold "
            f"{NORMAL_FOLDER} and {ANOMALOUS_FOLDER}"
        )
    for image in images_in(root / NORMAL_FOLDER):
        yield Sample(image, image.relative_to(root).as_posix(), category, "train", NORMAL)
    home = root / ANOMALOUS_FOLDER
    if not (home / "images").is_dir():
        raise DataError(
            f"no folder images in {home} ({described(home)}); the layout is "
            f"{ANOMALOUS_FOLDER}/images/<name>.tif and {ANOMALOUS_FOLDER}/gt/<name>_gt.png"
        )
    truth = home / "gt"
    masks = {path.stem: path for path in images_in(truth)} if truth.is_dir() else {}
    tests, missing = [], []
    for image in images_in(home / "images"):
        mask = masks.get(f"{image.stem}_gt")
        if mask is None:
            missing.append((str(image), str(truth / f"{image.stem}_gt.png")))
            continue
        name = image.relative_to(root).as_posix()
        tests.append(Sample(image, name, category, "test", ANOMALOUS, DEFECT, MaskFiles((mask,))))
    if missing:
        raise missing_masks(category, missing)
    yield from tests
