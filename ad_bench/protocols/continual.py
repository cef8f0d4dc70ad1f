"""The continual protocol: categories are learnt one after the other, and the earlier ones tested again.

Xie et al., IM-IAD, arXiv:2301.13359; M-3LAB/open-iad at 05044fe, paradigms/centralized/c2d.py: one model, one
training a task on its data alone; after each, every task so far is tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ad_bench.errors import UsageError
from ad_bench.protocols.lists import check_names, no_normals, normals, tests
from ad_bench.samples import Group, Sample


def continual(
    samples: Mapping[str, tuple[Sample, ...]], seed: int, order: Sequence[str] | None = None
) -> Iterator[Group]:
    """One group, whose `stages` hold the normal training images of one category each.

    The tasks come in alphabetical order, or in that of `order`, which names each category once. Tests stay by
    category. Nothing is drawn: `seed` changes the method alone.
    """
    names = sorted(samples) if order is None else check_names("order", order)
    if sorted(names) != sorted(samples):
        raise UsageError(
            f"protocol.order names every category of the run once: {', '.join(sorted(samples))}; got "
            f"{', '.join(names)}"
        )
    stages = tuple(normals(samples[name]) for name in names)
    empty = [name for name, stage in zip(names, stages, strict=True) if not stage]
    reason = None
    if empty:
        reason = f"{no_normals(empty[0])}, and every task of protocol=continual needs some"
    elif len(names) < 2:
        there = ", ".join(names) or "none"
        reason = f"protocol=continual needs two categories and more, there is {there}: use full"
    found = {name: tests(samples[name]) for name in names}
    yield Group("continual", (), found, stages=stages, skipped=reason, notes={"order": names})
