"""What data sets and protocols speak: samples, mask sources, groups. Imports no torch and opens no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Literal, TypeVar

NORMAL, ANOMALOUS = 0, 1


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """One or many mask images of the size of their sample; a pixel is a defect if any is above `above`.

    Several channels of a file count as one mask: a pixel is above if one of its channels is.
    saturations: MVTec LOCO's defects_config.json; each file is then a defect of its own, and its grey value
    says there at what area it saturates (sPRO).
    """

    paths: tuple[Path, ...]
    above: int = 0
    saturations: Path | None = None


@dataclass(frozen=True, slots=True)
class Boxes:
    """Rectangles around the defects. They are no masks: pixel metrics are undefined unless `filled`."""

    boxes: tuple[tuple[float, float, float, float], ...]  # left, top, right, bottom; the last two outside
    filled: bool = False  # every pixel of a box counts as defective


@dataclass(frozen=True, slots=True)
class Ellipses:
    """Ellipses that cover the defects, as a competition's weak labels do."""

    ellipses: tuple[tuple[float, float, float, float, float], ...]
    """Centre x and y, the two half axes, and the angle of the first from the x axis towards y in radians."""


@dataclass(frozen=True, slots=True)
class Polygons:
    """Outlines of the defects, each x0, y0, x1, y1, ... in pixels (COCO's `segmentation`)."""

    polygons: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Runs of defect pixels: the first pixel's number, from 1 and down the columns, and the length."""

    runs: tuple[tuple[int, int], ...]


MaskSource = MaskFiles | Boxes | Ellipses | Polygons | RunLengths


def mask_files(mask: MaskSource | None) -> tuple[Path, ...]:
    """The files that a mask is read from; none where the adapter has read it from a table."""
    if not isinstance(mask, MaskFiles):
        return ()
    return mask.paths if mask.saturations is None else (*mask.paths, mask.saturations)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set.

    `name` is its path relative to the data set's root, with slashes: the identity that records and
    fingerprints use. `mask` is None where the pixels' truth is unknown, or where nothing is defective.
    """

    image: Path
    name: str
    category: str
    split: Literal["train", "validation", "test"]
    label: int
    defect: str = "good"
    mask: MaskSource | None = None
    group: str | None = None  # images of one object (several views) share it
    extra: tuple[tuple[str, Path], ...] = ()  # further files of the image by role: depth, points, template


@dataclass(frozen=True)
class Group:
    """One fit and what it is tested on: `tests` holds the test samples by category, one cell each.

    `skipped` gives the reason where the combination makes no sense; nothing is fitted then.
    """

    name: str
    train: tuple[Sample, ...]
    tests: Mapping[str, tuple[Sample, ...]]
    support: tuple[Sample, ...] = ()
    stages: tuple[tuple[Sample, ...], ...] = ()  # continual: trained one after the other in place of `train`
    average: tuple[str, ...] = ()  # kinds of defects whose values, each with all normal images, are averaged
    skipped: str | None = None
    notes: Mapping[str, object] = field(default_factory=dict)  # what a record should say of the draw


T = TypeVar("T")
REMEMBERED = 128


def remembered(function: Callable[[Iterable[Sample]], T]) -> Callable[[Iterable[Sample]], T]:
    """`function`, which gives the same for the same samples, remembered for the last tuples of them.

    A sweep of thirty seeds asks thirty times. Tuples are known by identity: hashing their samples would take
    as long as most functions do.
    """
    known: dict[
        int, tuple[tuple[Sample, ...], T]
    ] = {}  # holds the tuple, so that no other takes its identity

    @wraps(function)
    def answer(samples: Iterable[Sample]) -> T:
        if not isinstance(samples, tuple):
            return function(samples)
        if id(samples) not in known:
            if len(known) >= REMEMBERED:
                del known[next(iter(known))]
            known[id(samples)] = samples, function(samples)
        return known[id(samples)][1]

    return answer
