"""KolektorSDD2 (Bozic et al., Computers in Industry 2021): train/ and test/ of NNNNN.png and NNNNN_GT.png.

Every image has a mask and nothing else says whether it is defective, so this adapter opens the masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, images_in
from ad_bench.datasets.images import mask_values
from ad_bench.datasets.threads import ahead, cores
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SUFFIX = "_GT"
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


def samples(root: Path, category: str, mask_above: int, excluded: Sequence[str]) -> Iterator[Sample]:
    """Every image, train before test, in name order; the defects among the training images are ANOMALOUS.

    An image is anomalous if a pixel of its mask is above `mask_above`. `excluded` names files, from the root,
    that the archive holds twice.
    """
    root = Path(root)
    for split in SPLITS:
        if not (root / split).is_dir():
            raise CategoryMissing(
                f"no folder {split} in {root} ({described(root)}); that folder should hold train and test "
                "with NNNNN.png and NNNNN_GT.png"
            )
    for split in SPLITS:
        images = [
            path
            for path in images_in(root / split)
            if not path.stem.endswith(SUFFIX) and path.relative_to(root).as_posix() not in excluded
        ]
        masks = {image: image.with_name(f"{image.stem}{SUFFIX}.png") for image in images}
        missing = [image for image, mask in masks.items() if not mask.is_file()]
        if missing:
            rest = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
            raise DataError(
                f"no mask for {missing[0]}{rest}; looked for {masks[missing[0]]}. The mask says whether "
                "an image is defective, and normal ones have a black one: unpack the archive again, or "
                "remove what is not of it"
            )
        marked = ahead(
            lambda mask: bool((mask_values(mask) > mask_above).any()), list(masks.values()), cores()
        )
        for image, defective in zip(images, marked, strict=True):
            name = image.relative_to(root).as_posix()
            if defective:
                mask = MaskFiles((masks[image],), mask_above)
                yield Sample(image, name, category, split, ANOMALOUS, "defect", mask)
            else:
                yield Sample(image, name, category, split, NORMAL)
