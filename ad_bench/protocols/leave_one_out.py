"""Leave one category out: trained on all others, tested on one of which a few normal images are known.

Huang et al., "Registration based few-shot anomaly detection", ECCV 2022, arXiv:2207.07361;
MediaBrain-SJTU/RegAD at 4a45bf5, datasets/mvtec.py (every folder but the target's) and test.py (supports).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from ad_bench.protocols.few_shot import purpose, support_notes
from ad_bench.protocols.lists import check_count, check_names, draw, no_normals, normals, tests
from ad_bench.samples import Group, Sample


def leave_one_out(
    samples: Mapping[str, tuple[Sample, ...]], seed: int, shots: int, augment: Sequence[str] = ()
) -> Iterator[Group]:
    """One group a category: `train` holds the normal images of the others, `support` `shots` of its own.

    The support is that of few_shot with the same seed. `samples` must hold all categories of the data set,
    not only those asked for. `augment` names the changed copies of the support that the runner adds.
    """
    check_count("shots", shots, 1, "For none, use zero_shot")
    names = check_names("augment", augment)
    for category, listed in samples.items():
        others = [other for other in sorted(samples) if other != category]
        train = tuple(chain.from_iterable(normals(samples[other]) for other in others))
        drawn = draw(normals(listed), shots, seed, purpose(category))
        reason = None if drawn else no_normals(category)
        if not train:
            reason = (
                f"leave_one_out trains on the other categories, and beside '{category}' there is "
                f"{'none' if not others else 'none with normal training images'}: use few_shot"
            )
        notes = support_notes(shots, drawn, names) | {"trained_on": others}
        yield Group(category, train, {category: tests(listed)}, support=drawn, skipped=reason, notes=notes)
