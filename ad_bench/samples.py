"""What data sets and protocols speak: samples, mask sources, groups. Imports no torch and opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

NORMAL, ANOMALOUS = 0, 1


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """One or many mask images of the size of their sample; a pixel is a defect if any is above `above`.

    Several channels of a file count as one mask: a pixel is above if one of its channels is.
    """

    paths: tuple[Path, ...]
    above: int = 0


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
    mask: MaskFiles | None = None
    group: str | None = None  # images of one object (several views) share it


@dataclass(frozen=True)
class Group:
    """One fit and what it is tested on: `tests` holds the test samples by category, one cell each.

    `skipped` gives the reason where the combination makes no sense; nothing is fitted then.
    """

    name: str
    train: tuple[Sample, ...]
    tests: Mapping[str, tuple[Sample, ...]]
    support: tuple[Sample, ...] = ()
    skipped: str | None = None
    notes: Mapping[str, object] = field(default_factory=dict)  # what a record should say of the draw
