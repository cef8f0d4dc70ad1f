"""AITEX fabric images (Silvestre-Blanes et al., 2019): Defect_images, NODefect_images/<roll>, Mask_images.

An anomalous strip is nnnn_ddd_ff.png: number, code of the defect, code of the fabric. Its mask adds `_mask`,
or `_mask1` and `_mask2` where defects were drawn apart. No split is given; the one here is drawn.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ad_bench.datasets.files import described, folders_in, images_in, missing_masks
from ad_bench.draws import training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

DEFECTS = {
    "002": "broken_end",
    "006": "broken_yarn",
    "010": "broken_pick",
    "016": "weft_curling",
    "019": "fuzzyball",
    "022": "cut_selvage",
    "023": "crease",
    "025": "warp_ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft_crack",
}


def samples(
    root: Path,
    category: str,
    train_share: float,
    split_seed: int,
    mask_above: int,
    excluded: Sequence[str],
) -> Iterator[Sample]:
    """Every strip, whole, train before test, in name order.

    `train_share` of the normal strips train, drawn by `split_seed`; the rest and all defects test. `excluded`
    names stems that are left out; any other anomalous strip without a mask is a DataError.
    """
    root = Path(root)
    if not (root / "NODefect_images").is_dir():
        raise CategoryMissing(
            f"no folder NODefect_images in {root} ({described(root)}); that folder should hold "
            "NODefect_images, Defect_images and Mask_images"
        )
    for part in ("Defect_images", "Mask_images"):
        if not (root / part).is_dir():
            raise DataError(
                f"no folder {part} in {root} ({described(root)}); AITEX comes as three archives: unpack all "
                "three there"
            )
    rolls = folders_in(root / "NODefect_images")
    strips = [image for roll in rolls for image in images_in(roll)] + images_in(root / "NODefect_images")
    normal = {image.relative_to(root).as_posix(): image for image in strips}
    drawn = training_share(normal, train_share, split_seed, "aitex.split")
    for name in sorted(drawn):
        yield Sample(normal[name], name, category, "train", NORMAL)
    tests = [Sample(normal[name], name, category, "test", NORMAL) for name in normal if name not in drawn]
    masks = _masks(root / "Mask_images")
    missing = []
    for image in images_in(root / "Defect_images"):
        if image.stem in excluded:
            continue
        if image.stem not in masks:
            missing.append((str(image), str(root / "Mask_images" / f"{image.stem}_mask.png")))
            continue
        name, mask = image.relative_to(root).as_posix(), MaskFiles(tuple(masks[image.stem]), mask_above)
        tests.append(Sample(image, name, category, "test", ANOMALOUS, _defect(image), mask))
    if missing:
        raise missing_masks(category, missing)
    yield from sorted(tests, key=lambda sample: sample.name)


def _masks(folder: Path) -> dict[str, list[Path]]:
    """Stem of the image -> its masks."""
    found = defaultdict(list)
    for path in images_in(folder):
        found[re.sub(r"_mask\d*$", "", path.stem)].append(path)
    return dict(found)


def _defect(image: Path) -> str:
    parts = image.stem.split("_")
    if len(parts) != 3 or parts[1] not in DEFECTS:
        raise DataError(
            f"{image} does not name its defect: wanted nnnn_ddd_ff.png with ddd one of {', '.join(DEFECTS)}; "
            "restore the name of the archive or remove the file"
        )
    return DEFECTS[parts[1]]
