"""Real-IAD (Wang et al., CVPR 2024): objects seen from five sides, split by one JSON file a category.

<jsons>/<category>.json holds `meta` (prefix, normal_class) and the lists `train` and `test`; an entry's
image_path and mask_path are relative to <images>/<prefix>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ad_bench.datasets.files import described, missing_masks
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, MaskFiles, Sample

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
ENTRY = ("anomaly_class", "image_path", "mask_path")
# The object is what stands before the view: audiojack_0001_NG_BX_C2_<time>.jpg -> audiojack_0001_NG_BX
OBJECT = re.compile(r"(?P<object>.+)_(?P<view>C[0-9]+)_[^_]*$")


def samples(
    root: Path,
    category: str,
    images: str,
    jsons: str,
    views: Sequence[str] | str | None,
    noise_as_normal: bool,
) -> Iterator[Sample]:
    """Every image of a category that its JSON file lists, train before test, in name order.

    `images` and `jsons` are folders of `root`. `views` (C1 to C5) keeps some of the five sides. An image is
    normal where it has no mask: the side of a broken object that does not show the defect. With
    `noise_as_normal` all that the training list holds counts as normal, which the noisy lists (fuiad) mean.
    Images of one object share a `group`.
    """
    root = Path(root)
    path = _json(root, jsons, category)
    if path is None or not (root / images / category).is_dir():
        lacking = root / images / category if path is not None else root / jsons / f"{category}.json"
        raise CategoryMissing(
            f"no '{category}' at {lacking} ({lacking.parent} is: {described(lacking.parent)}); each category "
            f"is an archive unpacked into {images}, and {jsons} comes from realiad_jsons.zip"
        )
    listed = _read(path)
    home = root / images / _inside(str(listed["meta"]["prefix"]), path)
    wanted = None if views is None else {views} if isinstance(views, str) else set(views)
    gone: list[str] = []
    for split in SPLITS:
        found, missing = [], []
        for entry in listed[split]:
            image = home / _inside(entry["image_path"], path)
            match = OBJECT.match(image.stem)
            if wanted is not None and (match is None or match["view"] not in wanted):
                continue
            if not image.is_file():
                gone.append(str(image))
                continue
            normal = entry["mask_path"] is None or entry["anomaly_class"] == listed["meta"]["normal_class"]
            name = image.relative_to(root).as_posix()
            group = f"{category}/{match['object']}" if match else None
            if normal or (split == "train" and noise_as_normal):
                found.append(Sample(image, name, category, split, NORMAL, group=group))
                continue
            mask = home / _inside(entry["mask_path"], path)
            if not mask.is_file():
                missing.append((str(image), str(mask)))
                continue
            defect = str(entry["anomaly_class"])
            found.append(Sample(image, name, category, split, ANOMALOUS, defect, MaskFiles((mask,)), group))
        if gone:
            raise DataError(
                f"{path} lists {gone[0]}{f' and {len(gone) - 1} more' * (len(gone) > 1)}, not there; unpack "
                f"the archive of '{category}' into {root / images} again"
            )
        if missing:
            raise missing_masks(category, missing)
        yield from sorted(found, key=lambda sample: sample.name)


def _json(root: Path, jsons: str, category: str) -> Path | None:
    """The list of a category: below the root, or in the folder that the archive of all lists makes."""
    places = [folder / jsons / f"{category}.json" for folder in (root, root / "realiad_jsons")]
    return next((path for path in places if path.is_file()), None)


def _read(path: Path) -> Mapping[str, Any]:
    """The lists of a category, checked for the keys that are read; DataError for another file."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; unpack realiad_jsons.zip again") from error
    try:
        sound = {"prefix", "normal_class"} <= set(listed["meta"]) and all(
            key in entry for split in SPLITS for entry in listed[split] for key in ENTRY
        )
    except (KeyError, TypeError):
        sound = False
    if not sound:
        keys = ", ".join(map(str, listed)) if isinstance(listed, dict) else type(listed).__name__
        raise DataError(
            f"{path} is no list of Real-IAD (it holds: {keys}); wanted meta with prefix and normal_class, "
            f"train and test with {', '.join(ENTRY)} in every entry: unpack realiad_jsons.zip again"
        )
    lists: Mapping[str, Any] = listed
    return lists


def _inside(name: Any, path: Path) -> PurePosixPath:
    """A path of the JSON file, refused where it leads out of the data set."""
    inside = PurePosixPath(str(name))
    if not isinstance(name, str) or inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{path} holds the path {name!r}; wanted one below the category's folder")
    return inside
