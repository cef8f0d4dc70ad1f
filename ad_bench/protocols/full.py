"""The full protocol: one fit a category, on all its normal training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ad_bench.protocols.lists import no_normals, normals, tests
from ad_bench.samples import Group, Sample


def full(samples: Mapping[str, tuple[Sample, ...]], seed: int) -> Iterator[Group]:
    """One group a category. Nothing is drawn: `seed` changes the method alone."""
    for category, listed in samples.items():
        train = normals(listed)
        reason = None if train else no_normals(category)
        yield Group(category, train, {category: tests(listed)}, skipped=reason)
