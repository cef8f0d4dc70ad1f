"""Seeded draws that mean the same on every platform, in every version, for ever. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order that depends on their set, the seed and the purpose alone.

    They are sorted by the SHA-256 of "purpose:seed:name": no library's random stream is involved, none of
    which is promised to stay. A name keeps its place among the others when some are added or removed.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest())
