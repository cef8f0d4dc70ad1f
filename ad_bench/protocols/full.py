"""The full protocol: one fit a category, on all its normal training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ad_bench.samples import NORMAL, Group, Sample


def full(samples: Mapping[str, tuple[Sample, ...]], seed: int) -> Iterator[Group]:
    """One group a category. Nothing is drawn: `seed` changes the method alone."""
    for category, listed in samples.items():
        train = tuple(sample for sample in listed if sample.split == "train" and sample.label == NORMAL)
        test = tuple(sample for sample in listed if sample.split == "test")
        reason = None if train else f"'{category}' has no normal training images"
        yield Group(category, train, {category: test}, skipped=reason)
