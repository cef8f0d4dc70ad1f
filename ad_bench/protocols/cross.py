"""The cross protocol: trained on one data set, tested on another.

Zhou et al., "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection", ICLR 2024,
arXiv:2310.18961: one fit on an auxiliary data set, its test images with labels and masks
(labelled=true), then tested on every other without any training there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ad_bench.errors import UsageError
from ad_bench.protocols.lists import by_name, normals, tests
from ad_bench.samples import Group, Sample


def cross(
    samples: Mapping[str, tuple[Sample, ...]],
    seed: int,
    source: Mapping[str, tuple[Sample, ...]] | None = None,
    source_id: str = "source",
    labelled: bool = False,
) -> Iterator[Group]:
    """One group: trained on the normal training images of `source`, tested on every category of `samples`.

    labelled: on all its training and test images instead, with labels and masks. The source may be other
    categories of the same data set. Nothing is drawn: `seed` changes the method alone.
    """
    if not isinstance(labelled, bool):
        raise UsageError(f"protocol.labelled is true or false; got {labelled!r}")
    names = sorted(source or {})
    train: tuple[Sample, ...] = ()
    for name in names:
        listed = (source or {})[name]
        whole = by_name(replace(s, split="train") for s in listed if s.split != "validation")
        train += whole if labelled else normals(listed)
    found = {category: tests(listed) for category, listed in samples.items()}
    tested = {sample.image for test in found.values() for sample in test}
    if both := [sample.name for sample in train if sample.image in tested]:
        raise UsageError(
            f"{len(both)} images of {source_id} would train and be tested, first {both[0]}: take another "
            "source, other protocol.source_categories, or protocol.labelled=false"
        )
    reason = None if train else f"{source_id} has no {'' if labelled else 'normal '}training images"
    notes = {"source": source_id, "trained_on": names, "labelled": labelled}
    yield Group(f"from {source_id}", train, found, skipped=reason, notes=notes)
