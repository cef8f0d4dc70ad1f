"""What of a data set is there, whole, and as published. It finds; `adbench data check` prints."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.datasets.store import ahead, cores
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.samples import ANOMALOUS, NORMAL, Sample, mask_files

if TYPE_CHECKING:
    from ad_bench.datasets.dataset import DataSet

Track = Callable[[Iterable, int, str], Iterator]  # the same items, their number and a word for the bar
EVER_COUNTED = ("train", "test_normal", "test_anomalous", "masks")
IF_ANY = ("validation", "train_anomalous", "validation_anomalous")


@dataclass(frozen=True)
class Twins:
    """Several samples with the same content."""

    names: tuple[str, ...]
    splits: tuple[str, ...]  # of each name
    labels: tuple[int, ...]

    @property
    def leak(self) -> bool:
        """Whether a test image is also trained or tuned on."""
        return "test" in self.splits and set(self.splits) != {"test"}

    @property
    def contradiction(self) -> bool:
        """Whether the same image is called normal here and anomalous there."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True)
class CheckReport:
    """What `adbench data check` says of one category."""

    category: str
    found: Mapping[str, int]  # train, test_normal, test_anomalous, masks, and validation where there is one
    expected: Mapping[str, int]  # the published counts; empty where none are known
    problems: tuple[str, ...] = ()  # runs would fail or mean something else
    warnings: tuple[str, ...] = ()  # worth knowing
    twins: tuple[Twins, ...] = ()  # the same image more than once
    absent: bool = False  # nothing of it is on this disk

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of a run that means what its table says."""
        return not self.problems


def check_category(
    dataset: DataSet, category: str, deep: bool = False, track: Track | None = None
) -> CheckReport:
    """Compare a category with the published counts and look for lost and doubled files.

    Files are listed, and read where others have the same size. `deep` decodes every image and mask: it finds
    what is damaged or of the wrong size, and equal pixels in files that differ.
    """
    track = track or (lambda items, total, text: iter(items))
    expected = dict(dataset.counts.get(category, {}))
    try:
        listed = dataset.samples(category)
    except DataError as error:
        absent = isinstance(error, CategoryMissing)
        return CheckReport(category, {}, expected, problems=(str(error),), absent=absent)
    counts = _counts(listed)
    found = {
        key: count
        for key, count in counts.items()
        if key in EVER_COUNTED or key in expected or (key in IF_ANY and count)
    }
    problems = [
        f"'{category}' should have {count} {_words(key)} (published counts); found {counts[key]}"
        for key, count in expected.items()
        if key in counts and counts[key] != count
    ]
    problems += [
        f"dataset.counts.{category}.{key} counts nothing; known: {', '.join(counts)}"
        for key in expected
        if key not in counts
    ]
    broken = _unreadable(listed)
    problems += broken.values()
    warnings = _one_sided(category, listed, dataset.facts.get("defined"))
    whole = [sample for sample in listed if sample.image not in broken]
    if deep:
        digests = _decoded(whole, broken, problems, warnings, track)
    else:
        digests = _hashed(whole, problems, track)
    return CheckReport(category, found, expected, tuple(problems), tuple(warnings), _twins(whole, digests))


def unused_masks(dataset: DataSet, categories: Sequence[str]) -> list[str]:
    """Paths, from the root, of what the YAML's `mask_files` find and no sample of the categories uses.

    A glob without {category} is asked for only where all categories of this disk are meant.
    """
    whole = set(categories) >= set(dataset.available())
    found: set[Path] = set()
    for pattern in dataset.facts.get("mask_files") or ():
        if "{category}" in pattern:
            for category in categories:
                found.update(dataset.root.glob(pattern.replace("{category}", glob.escape(category))))
        elif whole:
            found.update(dataset.root.glob(pattern))
    for category in categories:
        try:
            for sample in dataset.samples(category):
                found.difference_update(mask_files(sample.mask))
        except DataError:  # check_category says what is wrong with it
            continue
    return sorted(path.relative_to(dataset.root).as_posix() for path in found if path.name[0] != ".")


def _counts(listed: Sequence[Sample]) -> dict[str, int]:
    counts = {"train": 0, "validation": 0, "test": 0}
    by_label = {f"{split}_{word}": 0 for split in counts for word in ("normal", "anomalous")}
    for sample in listed:
        counts[sample.split] += 1
        by_label[f"{sample.split}_{'normal' if sample.label == NORMAL else 'anomalous'}"] += 1
    masks = sum(sample.mask is not None for sample in listed)
    return {**counts, **by_label, "masks": masks}


def _words(key: str) -> str:
    return "masks" if key == "masks" else f"{key} images"


def _unreadable(listed: Sequence[Sample]) -> dict[Path, str]:
    """Files of the samples that are not there, empty or closed, and what to say of each. Opens none."""
    said: dict[Path, str] = {}
    seen: set[Path] = set()
    for sample in listed:
        files = [
            ("image", sample.image),
            *(("mask", path) for path in mask_files(sample.mask)),
            *sample.extra,
        ]
        for role, path in files:
            if path in seen:
                continue
            seen.add(path)
            try:
                size = path.stat().st_size
            except OSError as error:
                why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
                said[path] = f"no {role} {path} for {sample.name}{why}"
                continue
            if not size:
                said[path] = f"the {role} {path} is empty (0 bytes); fetch it again"
            elif not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                said[path] = f"may not read the {role} {path}; change its permissions (chmod +r)"
    return said


def _one_sided(category: str, listed: Sequence[Sample], defined: Sequence[str] | None) -> list[str]:
    """What makes a metric undefined though no file is at fault."""
    tests = [sample for sample in listed if sample.split == "test"]
    said = []
    bare = [sample.name for sample in tests if sample.label == ANOMALOUS and sample.mask is None]
    if bare and (defined is None or "pixel" in defined):
        said.append(_several("test defects without a mask; no pixel metrics for them", bare))
    for label, word in ((NORMAL, "normal"), (ANOMALOUS, "anomalous")):
        if not any(sample.label == label for sample in tests):
            said.append(f"'{category}' has no {word} test images; AUROC and AUPR are undefined")
    return said


def _decoded(
    listed: Sequence[Sample],
    broken: Mapping[Path, str],
    problems: list[str],
    warnings: list[str],
    track: Track,
) -> dict[str, bytes]:
    """Names and pixel hashes of what decodes; the rest is a problem, as is a mask that denies its label."""
    black, digests = [], {}
    sound = [sample for sample in listed if not any(path in broken for path in mask_files(sample.mask))]
    results = ahead(_pixels, sound, cores())
    for sample, result in zip(sound, track(results, len(sound), "decode"), strict=True):
        if isinstance(result, DataError):
            problems.append(str(result))
            continue
        defective, digests[sample.name] = result
        if sample.label == ANOMALOUS and sample.mask is not None and not defective:
            black.append(sample.name)
        elif sample.label == NORMAL and defective:
            problems.append(f"{sample.name} is normal, but its mask marks {defective} pixels")
    if black:
        warnings.append(_several("anomalous images with an empty mask", black))
    return digests


def _pixels(sample: Sample) -> tuple[int, bytes] | DataError:
    """The number of defect pixels and the hash of the image's pixels, or what is wrong with its files."""
    try:
        pixels = decode(sample.image)
        height, width = pixels.shape[:2]
        digest = hashlib.sha256(f"{height}x{width}".encode() + pixels.tobytes()).digest()
        return int(read_mask(sample.mask, (height, width), sample.name).sum()), digest
    except DataError as error:
        return error


def _hashed(listed: Sequence[Sample], problems: list[str], track: Track) -> dict[str, bytes]:
    """Names and content hashes of the files that are as large as another one; all others differ anyway."""
    by_size: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in listed:
        by_size[sample.image.stat().st_size].append(sample)
    alike = [sample for group in by_size.values() if len(group) > 1 for sample in group]
    digests = {}
    results = ahead(_content, [sample.image for sample in alike], cores())
    for sample, result in zip(alike, track(results, len(alike), "compare"), strict=True):
        if isinstance(result, OSError):
            problems.append(f"cannot read {sample.image}: {result.strerror}; check the disk")
        else:
            digests[sample.name] = result
    return digests


def _content(path: Path) -> bytes | OSError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return error


def _twins(listed: Sequence[Sample], digests: Mapping[str, bytes]) -> tuple[Twins, ...]:
    groups: defaultdict[bytes, list[Sample]] = defaultdict(list)
    for sample in listed:
        if sample.name in digests:
            groups[digests[sample.name]].append(sample)
    return tuple(
        Twins(tuple(s.name for s in group), tuple(s.split for s in group), tuple(s.label for s in group))
        for group in groups.values()
        if len(group) > 1
    )


def twin_lines(twins: Sequence[Twins]) -> tuple[list[str], list[str]]:
    """Warnings and notes on images that stand in a category more than once."""
    warnings, notes = [], []
    leaks = [group for group in twins if group.leak]
    if leaks:
        count = sum(group.splits.count("test") for group in leaks)
        warnings.append(f"{count} test images are training or validation images too: {_pairs(leaks)}")
    torn = [group for group in twins if group.contradiction]
    if torn:
        warnings.append(f"{len(torn)} images are labelled normal and anomalous: {_pairs(torn)}")
    for split in ("train", "validation", "test"):
        inner = [group for group in twins if group.splits.count(split) > 1]
        if inner:
            spare = sum(group.splits.count(split) - 1 for group in inner)
            notes.append(f"{spare} {split} images repeat another one: {_pairs(inner, split)}")
    return warnings, notes


def _pairs(groups: Sequence[Twins], split: str | None = None) -> str:
    shown = [
        " = ".join(name for name, at in zip(group.names, group.splits, strict=True) if split in (None, at))
        for group in groups[:3]
    ]
    return ", ".join(shown) + (", ..." if len(groups) > 3 else "")


def _several(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
