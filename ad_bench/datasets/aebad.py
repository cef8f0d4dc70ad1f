"""AeBAD (Zhang et al., arXiv:2304.02216): blades of aero-engines under other light, background and view.

Two data sets in one download. AeBAD_S: train/good/<domain>/*.png, test/{good,<defect>}/<domain>/*.png and
ground_truth/<defect>/<domain>/*.png, a mask having the name of its image. AeBAD_V, frames of videos without
masks: train/good/<video>_train/*.jpg, test/<video>/{good,anomaly}/*.jpg.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, folders_in, images_in, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SINGLE, VIDEO = "AeBAD_S", "AeBAD_V"


def samples(root: Path, category: str, mask_above: int) -> Iterator[Sample]:
    """Every image for the test domain `category` of AeBAD_S, train before test, in name order.

    The domains share one training set: the folders of train/good are other light, backgrounds and views than
    those of the test, and all of them train, as in the authors' loader.
    """
    root = Path(root)
    home = _home(root, SINGLE)
    test = _folder(home / "test", "good and one folder for each defect")
    found = [(folder, folder / category) for folder in folders_in(test) if (folder / category).is_dir()]
    if not found:
        raise CategoryMissing(
            f"no folder {category} below the folders of {test} ({described(test)}); the layout is "
            f"{SINGLE}/test/<defect>/{category}/*.png"
        )
    yield from _train(root, home, category)
    tests, missing = [], []
    for folder, domain in found:
        defect = folder.name
        truth = home / "ground_truth" / defect / category
        masks = {mask.stem: mask for mask in images_in(truth)} if truth.is_dir() else {}
        for image in images_in(domain):
            if defect == "good":
                tests.append(_sample(root, image, category))
            elif image.stem in masks:
                mask = MaskFiles((masks[image.stem],), mask_above)
                tests.append(Sample(image, _name(root, image), category, "test", ANOMALOUS, defect, mask))
            else:
                missing.append((str(image), str(truth / f"{image.stem}.png")))
    if missing:
        raise missing_masks(category, missing)
    yield from tests


def videos(root: Path, category: str) -> Iterator[Sample]:
    """Every frame for the test video `category` of AeBAD_V, train before test, in name order; no masks."""
    root = Path(root)
    home = _home(root, VIDEO)
    test = home / "test" / category
    if not test.is_dir():
        raise CategoryMissing(
            f"no folder {category} in {home / 'test'} ({described(home / 'test')}); the layout is "
            f"{VIDEO}/test/{category}/{{good,anomaly}}/*.jpg"
        )
    yield from _train(root, home, category)
    for folder in folders_in(test):
        for image in images_in(folder):
            if folder.name == "good":
                yield _sample(root, image, category)
            else:
                yield Sample(image, _name(root, image), category, "test", ANOMALOUS, folder.name)


def _train(root: Path, home: Path, category: str) -> Iterator[Sample]:
    good = _folder(home / "train" / "good", "one folder of images for each condition")
    for folder in folders_in(good):
        for image in images_in(folder):
            yield Sample(image, _name(root, image), category, "train", NORMAL)


def _home(root: Path, part: str) -> Path:
    if not (root / part).is_dir():
        raise CategoryMissing(
            f"no folder {part} in {root} ({described(root)}); the archive's folder AeBAD, which holds "
            f"{SINGLE} and {VIDEO}, is the root"
        )
    return root / part


def _folder(folder: Path, wanted: str) -> Path:
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder} ({folder.parent} is: {described(folder.parent)}); it should hold {wanted}: "
            "unpack the archive again"
        )
    return folder


def _sample(root: Path, image: Path, category: str) -> Sample:
    return Sample(image, _name(root, image), category, "test", NORMAL)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
