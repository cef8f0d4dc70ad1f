"""BTAD of beanTech (Mishra et al., ISIE 2021): <product>/{train,test}/{ok,ko} and <product>/ground_truth/ko.

Images are BMP or PNG, and so are the masks, not always of the same kind: a mask has the stem of its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, images_in, masks_by_stem, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

ARCHIVE_FOLDER = "BTech_Dataset_transformed"  # what the archive unpacks to


def samples(root: Path, category: str, mask_above: int) -> Iterator[Sample]:
    """Every image of a product, train before test, in name order; a few anomalous images have an empty mask.

    The products lie in `root` or in the archive's own folder there. A DataError names a `ko` image without a
    mask.
    """
    root = Path(root)
    home = next((top / category for top in (root, root / ARCHIVE_FOLDER) if (top / category).is_dir()), None)
    if home is None:
        raise CategoryMissing(
            f"no category '{category}' at {root / category} or in {ARCHIVE_FOLDER} there "
            f"({described(root)}); that folder should hold train/ok, test/ok, test/ko and ground_truth/ko"
        )
    for part in ("train/ok", "test/ok", "test/ko"):
        if not (home / part).is_dir():
            raise DataError(
                f"no folder {part} in {home} ({described(home)}); BTAD calls normal images ok and anomalous "
                "ones ko: unpack btad.zip again"
            )

    def name(image: Path) -> str:
        return image.relative_to(root).as_posix()

    for image in images_in(home / "train/ok"):
        yield Sample(image, name(image), category, "train", NORMAL)
    truth = home / "ground_truth/ko"
    masks, missing = masks_by_stem(truth), []
    tests = [Sample(image, name(image), category, "test", NORMAL) for image in images_in(home / "test/ok")]
    for image in images_in(home / "test/ko"):
        if image.stem in masks:
            mask = MaskFiles((masks[image.stem],), mask_above)
            tests.append(Sample(image, name(image), category, "test", ANOMALOUS, "ko", mask))
        else:
            missing.append((str(image), f"{truth / image.stem}.png or .bmp"))
    if missing:
        raise missing_masks(category, missing)
    yield from sorted(tests, key=lambda sample: sample.name)
