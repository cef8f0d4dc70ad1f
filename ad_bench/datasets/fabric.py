"""The fabric images of Hong Kong (Ngan, Pang, Yung; Tsang et al., 2016): <pattern>/{normal,defective}.

No page states how the download is laid out. This is the layout that ZJU-Leaper's scripts read: a mask has the
name of its image, the kind of defect stands in the name between underscores. No split is given; it is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ad_bench.datasets.files import described, images_in, masks_by_stem, missing_masks
from ad_bench.draws import training_share
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample


def samples(
    root: Path,
    category: str,
    train_share: float,
    split_seed: int,
    mask_dir: str | None,
    mask_above: int,
) -> Iterator[Sample]:
    """Every image of a pattern, train before test, in name order.

    `train_share` of the normal images train, drawn by `split_seed`; the rest and all defects test. `mask_dir`
    is the folder of masks below `defective`; null: there are none, and no pixel metrics.
    """
    root = Path(root)
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no category '{category}' at {home} ({described(root)}); that folder should hold normal and "
            "defective"
        )
    for part in ("normal", "defective"):
        if not (home / part).is_dir():
            raise DataError(
                f"no folder {part} in {home} ({described(home)}); sort the images into {home}/normal and "
                f"{home}/defective, or read folders of other names with dataset=folder dataset.id=fabric"
            )
    normal = {image.relative_to(root).as_posix(): image for image in images_in(home / "normal")}
    drawn = training_share(normal, train_share, split_seed, "fabric.split")
    for name in sorted(drawn):
        yield Sample(normal[name], name, category, "train", NORMAL)
    tests = [Sample(normal[name], name, category, "test", NORMAL) for name in normal if name not in drawn]
    masks, missing = ({} if mask_dir is None else masks_by_stem(home / "defective" / mask_dir)), []
    for image in images_in(home / "defective"):
        mask = MaskFiles((masks[image.stem],), mask_above) if image.stem in masks else None
        if mask is None and mask_dir is not None:
            missing.append((str(image), str(home / "defective" / mask_dir / image.name)))
        kind = re.search(r"_([a-z]+)_", image.stem, re.IGNORECASE)
        defect = kind[1].lower() if kind else "defect"
        name = image.relative_to(root).as_posix()
        tests.append(Sample(image, name, category, "test", ANOMALOUS, defect, mask))
    if missing:
        error = missing_masks(category, missing)
        raise DataError(f"{error}. Without any masks: dataset.samples.mask_dir=null, for image metrics alone")
    yield from sorted(tests, key=lambda sample: sample.name)
