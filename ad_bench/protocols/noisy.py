"""The noisy protocol: unlabelled anomalies among the normal training images.

Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022, arXiv:2403.14233;
TencentYoutuResearch/AnomalyDetection-SoftPatch at d455bf7, main.py: int(ratio * normal images) anomalies of
the test set train too; without overlap they are not tested.
Xie et al., IM-IAD, arXiv:2301.13359; M-3LAB/open-iad at 05044fe, data_io/noisy.py: the same, and never more
than 75 % of the anomalies, so that some are left to test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ad_bench.errors import UsageError
from ad_bench.protocols.lists import anomalous, by_name, draw, no_normals, normals, tests, without
from ad_bench.samples import NORMAL, Group, Sample

CAP = 0.75  # IM-IAD: of a category's anomalies


def noisy(
    samples: Mapping[str, tuple[Sample, ...]],
    seed: int,
    ratio: float,
    overlap: bool = False,
    reserve: float | None = None,
) -> Iterator[Group]:
    """One group a category: its normal training images and int(ratio * their number) of its test anomalies.

    No method can tell these: they come as normal images, without mask and kind. The draw of a larger ratio
    holds that of a smaller one. They are tested as well with `overlap` only. Test sets then differ from ratio
    to ratio; with `reserve`, the anomalies that this ratio would inject are tested at none (also not at 0),
    and ratios up to it compare on one test set.
    """
    _check(ratio, overlap, reserve)
    for category, listed in samples.items():
        train, whole = normals(listed), tests(listed)
        known, most = anomalous(whole), int(CAP * len(anomalous(whole)))
        injected, held = (
            draw(known, min(int(share * len(train)), most), seed, f"noisy:{category}")
            for share in (ratio, ratio if reserve is None else reserve)
        )
        test = whole if overlap else without(whole, held)
        reason = None if train else no_normals(category)
        if train and int(ratio * len(train)) and not injected:
            reason = f"'{category}' has {len(known)} anomalous test images: too few to inject any"
        notes = {
            "ratio": ratio,
            "overlap": overlap,
            "reserve": reserve,
            "injected": [sample.name for sample in injected],
            "realised_ratio": len(injected) / len(train) if train else 0.0,
            "capped": len(injected) < int(ratio * len(train)),
        }
        hidden = (replace(s, split="train", label=NORMAL, defect="good", mask=None) for s in injected)
        yield Group(category, by_name((*train, *hidden)), {category: test}, skipped=reason, notes=notes)


def _check(ratio: float, overlap: bool, reserve: float | None) -> None:
    _check_share("ratio", ratio)
    if not isinstance(overlap, bool):
        raise UsageError(f"protocol.overlap is true or false; got {overlap!r}")
    if reserve is None:
        return
    _check_share("reserve", reserve)
    if overlap:
        raise UsageError(
            "protocol.reserve keeps anomalies out of the test, overlap=true keeps them in: set one"
        )
    if ratio > reserve:
        raise UsageError(
            f"protocol.ratio={ratio} needs more anomalies than protocol.reserve={reserve} keeps out of the "
            "test; reserve the largest ratio of the series"
        )


def _check_share(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError(
            f"protocol.{key} is anomalies to normal training images, from 0 to below 1; got {value!r}"
        )
