"""The few-shot protocol: one fit a category, on a few of its normal training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ad_bench.draws import shuffled
from ad_bench.errors import UsageError
from ad_bench.samples import NORMAL, Group, Sample


def few_shot(samples: Mapping[str, tuple[Sample, ...]], seed: int, shots: int) -> Iterator[Group]:
    """One group a category, with `shots` normal training images drawn at random without replacement.

    The draw is the training set and the support; a category with fewer images gives all, which the notes say.
    The draw of 4 is part of the draw of 8 with the same seed, so that shots compare (nested draws, ours).
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UsageError(
            f"protocol.shots is a number of images, at least 1; got {shots!r}. For none, use zero_shot"
        )
    for category, listed in samples.items():
        train = {
            sample.name: sample for sample in listed if sample.split == "train" and sample.label == NORMAL
        }
        names = sorted(shuffled(train, seed, f"few_shot:{category}")[:shots])
        drawn = tuple(train[name] for name in names)
        test = tuple(sample for sample in listed if sample.split == "test")
        notes = {"shots": shots, "shots_drawn": len(drawn), "support": names}
        reason = None if drawn else f"'{category}' has no normal training images"
        yield Group(category, drawn, {category: test}, support=drawn, skipped=reason, notes=notes)
