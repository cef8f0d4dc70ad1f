"""DeepPCB (Tang et al., 2019), as its repository has it: pairs of a defect-free template and a tested board.

trainval.txt and test.txt name the pairs: `group.../<id>.jpg group..._not/<id>.txt` stands for <id>_temp.jpg,
<id>_test.jpg and the boxes of the defects, one a line: left, top, right, bottom, kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ad_bench.datasets.files import described
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Boxes, Sample

KINDS = {"1": "open", "2": "short", "3": "mousebite", "4": "spur", "5": "copper", "6": "pin_hole"}
LISTS: tuple[tuple[str, Literal["train", "test"]], ...] = (("trainval.txt", "train"), ("test.txt", "test"))


def samples(root: Path, category: str, filled: bool) -> Iterator[Sample]:
    """Every image, train before test, in name order: templates are normal, tested boards ANOMALOUS.

    A tested board carries its template as `extra`. Its defect is the kind of all its boxes, or `combined`.
    """
    home = Path(root) / "PCBData"
    if not home.is_dir():
        raise CategoryMissing(
            f"no folder PCBData in {root} ({described(Path(root))}); it should hold trainval.txt, test.txt "
            "and group... as in the repository"
        )
    for file, split in LISTS:
        listed: list[Sample] = []
        for image, annotation in _pairs(home, file):
            template, board = (image.with_name(f"{image.stem}_{end}.jpg") for end in ("temp", "test"))
            for path in (template, board, annotation):
                if not path.is_file():
                    raise DataError(
                        f"{home / file} names a pair without {path}; get the repository again, or remove "
                        "the line"
                    )
            boxes, defect = _boxes(annotation)
            name = template.relative_to(root).as_posix()
            listed.append(Sample(template, name, category, split, NORMAL))
            name = board.relative_to(root).as_posix()
            mask, extra = Boxes(boxes, filled), (("template", template),)
            listed.append(Sample(board, name, category, split, ANOMALOUS, defect, mask, extra=extra))
        yield from sorted(listed, key=lambda sample: sample.name)


def _pairs(home: Path, file: str) -> Iterator[tuple[Path, Path]]:
    """The image's path without its ending, and the annotation, of each line of a list."""
    if not (home / file).is_file():
        raise DataError(
            f"no {file} in {home} ({described(home)}); it gives the split: copy it from the repository"
        )
    for row, line in enumerate((home / file).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not (parts := line.split()):
            continue
        if len(parts) != 2 or any(Path(part).is_absolute() or ".." in Path(part).parts for part in parts):
            raise DataError(
                f"{home / file}, line {row} is '{line}'; wanted 'group.../<id>.jpg group.../<id>.txt'"
            )
        yield home / parts[0], home / parts[1]


def _boxes(path: Path) -> tuple[tuple[tuple[float, float, float, float], ...], str]:
    """The boxes of an annotation and the name of their kind."""
    boxes, kinds = [], set()
    for row, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = re.findall(r"[^\s,]+", line)  # blanks in the files, commas in the repository's README
        if not parts:
            continue
        try:
            left, top, right, bottom = (float(part) for part in parts[:4])
            kinds.add(KINDS[parts[4]])
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(
                f"{path}, line {row} is '{line}'; wanted left, top, right, bottom and a kind from 1 to 6"
            ) from error
        boxes.append((left, top, right, bottom))
    if not boxes:
        raise DataError(
            f"{path} holds no box, but every tested board has a defect; copy it from the repository"
        )
    return tuple(boxes), kinds.pop() if len(kinds) == 1 else "combined"
