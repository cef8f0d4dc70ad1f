"""Seeded draws that mean the same on every platform, in every version, for ever. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from ad_bench.errors import UsageError


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order that depends on their set, the seed and the purpose alone.

    They are sorted by the SHA-256 of "purpose:seed:name": no library's random stream is involved, none of
    which is promised to stay. A name keeps its place among the others when some are added or removed.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest())


def training_share(names: Collection[str], share: float, seed: int, purpose: str) -> set[str]:
    """The names that train where a data set states no split: `share` of them, rounded, drawn by `seed`."""
    check_share(share)
    return set(shuffled(names, seed, purpose)[: round(share * len(names))])


def check_share(share: float) -> None:
    """Raise UsageError for a `train_share` that leaves nothing to train or nothing to test."""
    if not 0 < share < 1:
        raise UsageError(f"dataset.samples.train_share is a share in (0, 1); got {share}")
