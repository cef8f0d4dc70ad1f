"""The few-shot protocol: one fit a category, on a few of its normal training images.

Xie et al., "IM-IAD: Industrial Image Anomaly Detection Benchmark in Manufacturing", arXiv:2301.13359;
M-3LAB/open-iad at 05044fe, data_io/fewshot.py: drawn without replacement, at most all of the category.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ad_bench.protocols.lists import check_count, check_names, draw, no_normals, normals, tests
from ad_bench.samples import Group, Sample


def few_shot(
    samples: Mapping[str, tuple[Sample, ...]], seed: int, shots: int, augment: Sequence[str] = ()
) -> Iterator[Group]:
    """One group a category, with `shots` normal training images drawn at random without replacement.

    The draw is the training set and the support; a category with fewer images gives all, which the notes say.
    The draw of 4 is part of the draw of 8 with the same seed, so that shots compare (nested draws, ours).
    `augment` names the changed copies of the support that the runner adds.
    """
    check_count("shots", shots, 1, "For none, use zero_shot")
    names = check_names("augment", augment)
    for category, listed in samples.items():
        drawn = draw(normals(listed), shots, seed, purpose(category))
        reason = None if drawn else no_normals(category)
        notes = support_notes(shots, drawn, names)
        yield Group(category, drawn, {category: tests(listed)}, support=drawn, skipped=reason, notes=notes)


def purpose(category: str) -> str:
    """What the support's draw is named by; the same support serves every protocol that has one."""
    return f"few_shot:{category}"


def support_notes(shots: int, drawn: Sequence[Sample], augment: Sequence[str]) -> dict[str, object]:
    """What a record says of a support; of its copies only where there are any."""
    notes: dict[str, object] = {
        "shots": shots,
        "shots_drawn": len(drawn),
        "support": [sample.name for sample in drawn],
    }
    return notes | ({"augment": list(augment)} if augment else {})
