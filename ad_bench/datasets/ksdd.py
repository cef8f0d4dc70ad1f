"""KolektorSDD (Tabernik et al., JIM 2020): commutators kos01 to kos50 of PartN.jpg and PartN_label.bmp.

Nothing but the mask says whether a surface is defective, so this adapter opens the masks. It reads the
release with fine masks and the one with boxes drawn as masks alike. The one-class split is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described, folders_in, images_in
from ad_bench.datasets.images import mask_values
from ad_bench.datasets.threads import ahead, cores
from ad_bench.draws import training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SUFFIX = "_label"


def samples(
    root: Path, category: str, train_share: float, split_seed: int, mask_above: int
) -> Iterator[Sample]:
    """Every surface, train before test, in name order; `group` is the commutator.

    A surface is anomalous if a pixel of its mask is above `mask_above`. `train_share` of the normal surfaces
    train, drawn by `split_seed`; the rest and all defects test.
    """
    root = Path(root)
    items = [folder for folder in folders_in(root) if folder.name.startswith("kos")] if root.is_dir() else []
    if not items:
        raise CategoryMissing(
            f"no folders kos01 to kos50 in {root} ({described(root)}); each should hold PartN.jpg and "
            "PartN_label.bmp"
        )
    surfaces = [image for item in items for image in images_in(item) if not image.stem.endswith(SUFFIX)]
    masks = {image: image.with_name(f"{image.stem}{SUFFIX}.bmp") for image in surfaces}
    missing = [image for image, mask in masks.items() if not mask.is_file()]
    if missing:
        rest = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
        raise DataError(
            f"no mask for {missing[0]}{rest}; looked for {masks[missing[0]]}. The mask says whether a "
            "surface is defective, and normal ones have a black one: unpack the archive again"
        )
    marked = ahead(lambda image: bool((mask_values(masks[image]) > mask_above).any()), surfaces, cores())
    defective = dict(zip(surfaces, marked, strict=True))

    def sample(image: Path, split: Literal["train", "test"]) -> Sample:
        label = ANOMALOUS if defective[image] else NORMAL
        return Sample(
            image,
            image.relative_to(root).as_posix(),
            category,
            split,
            label,
            "defect" if label else "good",
            MaskFiles((masks[image],), mask_above) if label else None,
            group=image.parent.name,
        )

    normal = {image.relative_to(root).as_posix(): image for image in surfaces if not defective[image]}
    drawn = training_share(normal, train_share, split_seed, "ksdd.split")
    yield from (sample(normal[name], "train") for name in sorted(drawn))
    tests = {image.relative_to(root).as_posix(): image for image in surfaces}
    yield from (sample(tests[name], "test") for name in sorted(tests.keys() - drawn))
