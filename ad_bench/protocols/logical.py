"""The logical protocol: structural and logical anomalies count alike (MVTec LOCO AD).

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", IJCV 2022: each kind is scored with all normal images, and the two are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ad_bench.protocols.lists import check_names, kinds, no_normals, normals, tests
from ad_bench.samples import Group, Sample


def logical(samples: Mapping[str, tuple[Sample, ...]], seed: int, average: Sequence[str]) -> Iterator[Group]:
    """One group a category, trained as full; each metric is the mean over the kinds of defects in `average`.

    Nothing is drawn: `seed` changes the method alone. A category that lacks one of the kinds is skipped.
    """
    names = check_names("average", average)
    for category, listed in samples.items():
        train, test = normals(listed), tests(listed)
        reason = None if train else no_normals(category)
        if lacking := [name for name in names if name not in kinds(test)]:
            reason = (
                f"'{category}' has no {' and no '.join(lacking)} to average over; it has: "
                f"{', '.join(kinds(test)) or 'none'}. protocol=logical is for MVTec LOCO AD: use full"
            )
        notes = {"averaged": names}
        yield Group(category, train, {category: test}, average=tuple(names), skipped=reason, notes=notes)
