"""What the protocols share: parts of a list of samples, seeded draws, and tests without what was drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

from ad_bench.draws import shuffled
from ad_bench.errors import UsageError
from ad_bench.samples import ANOMALOUS, NORMAL, Sample, remembered

Samples = tuple[Sample, ...]


def by_name(samples: Iterable[Sample]) -> Samples:
    """The samples in name order, whatever order they came in."""
    return tuple(sorted(samples, key=attrgetter("name")))


@remembered
def normals(listed: Iterable[Sample]) -> Samples:
    """The normal training images, in name order."""
    return by_name([sample for sample in listed if sample.split == "train" and sample.label == NORMAL])


@remembered
def tests(listed: Iterable[Sample]) -> Samples:
    """The test images, in name order."""
    return by_name([sample for sample in listed if sample.split == "test"])


def anomalous(samples: Iterable[Sample]) -> Samples:
    """Those with a defect, in the order given."""
    return tuple(sample for sample in samples if sample.label == ANOMALOUS)


def draw(samples: Iterable[Sample], count: int, seed: int, purpose: str) -> Samples:
    """`count` of the samples at random without replacement, all where there are fewer; in name order.

    With one seed and purpose a smaller draw is part of a larger one, so that settings compare.
    """
    named = {sample.name: sample for sample in samples}
    return tuple(named[name] for name in sorted(shuffled(named, seed, purpose)[:count]))


def without(samples: Iterable[Sample], drawn: Collection[Sample]) -> Samples:
    """The samples that were not drawn, nor show an object that was: its other views would be known too."""
    names = {sample.name for sample in drawn}
    objects = {sample.group for sample in drawn} - {None}
    return tuple(s for s in samples if s.name not in names and s.group not in objects)


def kinds(samples: Iterable[Sample]) -> list[str]:
    """The kinds of defects among the samples, sorted."""
    return sorted({sample.defect for sample in anomalous(samples)})


def no_normals(category: str) -> str:
    """Why a category without normal training images is skipped."""
    return f"'{category}' has no normal training images"


def check_count(key: str, value: object, least: int, hint: str = "") -> None:
    """Raises UsageError unless `value` is a whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        text = f"protocol.{key} is a number of images, at least {least}; got {value!r}"
        raise UsageError(f"{text}. {hint}" if hint else text)


def check_names(key: str, value: object) -> list[str]:
    """`value` as a list of different names. Raises UsageError where it is none."""
    names = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UsageError(f"protocol.{key} is a list of different names such as [a,b]; got {value!r}")
    return [str(name) for name in names]
