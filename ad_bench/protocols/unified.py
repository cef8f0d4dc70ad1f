"""The unified protocol: one fit for all categories, without their names at test time.

You et al., "A unified model for multi-class anomaly detection", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ad_bench.protocols.lists import normals, tests
from ad_bench.samples import Group, Sample


def unified(samples: Mapping[str, tuple[Sample, ...]], seed: int) -> Iterator[Group]:
    """One group: the normal training images of every category given; tests stay by category.

    Nothing is drawn: `seed` changes the method alone.
    """
    train = tuple(sample for listed in samples.values() for sample in normals(listed))
    reason = None if train else f"no normal training images in {', '.join(samples) or 'any category'}"
    found = {category: tests(listed) for category, listed in samples.items()}
    yield Group("unified", train, found, skipped=reason, notes={"trained_on": list(samples)})
