"""GDXray (Mery et al., Journal of Nondestructive Evaluation 34, 2015): X-ray images with boxes.

<Group>/<series>/ holds <series>_0001.png, ... and, where the series is annotated, ground_truth.txt: a row for
each box with the number of its image, x1, x2, y1, y2, counted from 1 as MATLAB does, the last pixel inside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ad_bench.datasets.files import described, folders_in, images_in
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Boxes, Sample

TRUTH = "ground_truth.txt"
DEFECT = "defect"  # the boxes carry no kind

Box = tuple[float, float, float, float]


def samples(root: Path, category: str, leave_out: Sequence[str], filled: bool) -> Iterator[Sample]:
    """Every image of the group's annotated series, all in the test split, in name order.

    Series without a ground_truth.txt and those of `leave_out` are not listed. An image without a box in an
    annotated series is normal. `filled`: every pixel of a box counts as defective.
    """
    root = Path(root)
    home = root / category
    if not home.is_dir():
        raise CategoryMissing(
            f"no group '{category}' at {home} ({root} is: {described(root)}); that folder should hold the "
            f"series, {category[:1]}0001/ and so on"
        )
    series = [folder for folder in folders_in(home) if folder.name not in leave_out]
    annotated = [folder for folder in series if (folder / TRUTH).is_file()]
    if not annotated:
        raise DataError(
            f"no series of {home} ({described(home)}) has a {TRUTH}; the layout is "
            f"{category}/{category[:1]}0001/{TRUTH}: unpack {category}.zip again"
        )
    for folder in annotated:
        boxes = _boxes(folder / TRUTH)
        images = {number: path for path in images_in(folder) if (number := _number(path)) is not None}
        lost = sorted(boxes.keys() - images.keys())
        if lost:
            raise DataError(
                f"{folder / TRUTH} has boxes for image {lost[0]}, but there is no "
                f"{folder / f'{folder.name}_{lost[0]:04}.png'} ({len(images)} images are there); unpack "
                f"{category}.zip again"
            )
        for number, path in images.items():
            name, own = path.relative_to(root).as_posix(), tuple(boxes.get(number, ()))
            if own:
                yield Sample(path, name, category, "test", ANOMALOUS, DEFECT, Boxes(own, filled))
            else:
                yield Sample(path, name, category, "test", NORMAL)


def _number(path: Path) -> int | None:
    """7 of C0001_0007.png in the folder C0001; None for other files."""
    series, _, number = path.stem.rpartition("_")
    return int(number) if series == path.parent.name and number.isdecimal() else None


def _boxes(path: Path) -> dict[int, list[Box]]:
    """The boxes of a series by image number: left, top, right and bottom, the last two outside."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; unpack the archive again") from error
    found: defaultdict[int, list[Box]] = defaultdict(list)
    for count, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            number, *ends = (float(word) for word in line.split())
            x1, x2, y1, y2 = ends
            image = int(number)
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{path}, line {count}: {line.strip()!r}; wanted five numbers: image, x1, x2, y1, y2"
            ) from error
        # the archive swaps the ends of some boxes
        left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        found[image].append((left - 1, top - 1, right, bottom))
    return dict(found)
