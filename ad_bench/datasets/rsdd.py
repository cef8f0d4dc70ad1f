"""RSDDs, rail surface discrete defects (Gan et al.): <type>/Rail surface images/ and <type>/GroundTruth/.

Image and mask, both JPEG, share their name. Every image has a defect, so there
is nothing to train on and all of them test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, images_in, masks_by_stem, missing_masks
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import ANOMALOUS, MaskFiles, Sample

FOLDERS = {"type_1": "Type-I RSDDs dataset", "type_2": "Type-II RSDDs dataset"}
IMAGES, TRUTH = "Rail surface images", "GroundTruth"


def samples(root: Path, category: str, mask_above: int) -> Iterator[Sample]:
    """Every image of a type of rail, as a test image, in name order.

    Mask pixels count above `mask_above`: the masks are JPEGs, whose edges are not sharp.
    """
    root = Path(root)
    if category not in FOLDERS:
        raise UsageError(f"RSDDs has no category '{category}'; it has {', '.join(FOLDERS)}")
    homes = [parent / FOLDERS[category] for parent in (root, root / "RSDDs dataset")]
    home = next((folder for folder in homes if folder.is_dir()), None)
    if home is None:
        raise CategoryMissing(
            f"no folder {homes[0]} ({described(root)}); {root} should hold {' and '.join(FOLDERS.values())}"
        )
    for part in (IMAGES, TRUTH):
        if not (home / part).is_dir():
            raise DataError(
                f"no folder '{part}' in {home} ({described(home)}); the layout is {home.name}/{IMAGES}/"
                f"rail_1.jpg and {home.name}/{TRUTH}/rail_1.jpg: unpack it again or rename the folder"
            )
    masks = masks_by_stem(home / TRUTH)
    tests, missing = [], []
    for image in images_in(home / IMAGES):
        if image.stem not in masks:
            missing.append((str(image), str(home / TRUTH / image.name)))
            continue
        name = image.relative_to(root).as_posix()
        mask = MaskFiles((masks[image.stem],), mask_above)
        tests.append(Sample(image, name, category, "test", ANOMALOUS, "defect", mask))
    if missing:
        raise missing_masks(category, missing)
    yield from tests
