"""The mixed protocol: every training image is labelled, only some of the defects are outlined too.

Bozic, Tabernik, Skocaj, "Mixed supervision for surface-defect detection: from weakly to fully supervised
learning", Computers in Industry 2021, arXiv:2104.06064: N of the positive training images keep their mask;
N = 0 is weak supervision, all of them full. The authors publish which ones they took; ours are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ad_bench.protocols.lists import anomalous, by_name, check_count, draw, no_normals, normals, tests
from ad_bench.samples import Group, Sample


def mixed(samples: Mapping[str, tuple[Sample, ...]], seed: int, masks: int | str = "all") -> Iterator[Group]:
    """One group a category: all its training images with their labels; tests are those of the data set.

    `masks` of the anomalous ones keep their mask, or "all". Fewer are part of more with the same seed.
    For data sets with labelled training images (KolektorSDD, KolektorSDD2, DAGM, Severstal); others are
    skipped: what the test set alone has is for protocol=supervised.
    """
    if masks != "all":
        check_count("masks", masks, 0, "Or all, which is full supervision")
    for category, listed in samples.items():
        normal = normals(listed)
        positive = by_name(anomalous(sample for sample in listed if sample.split == "train"))
        outlined = [sample for sample in positive if sample.mask is not None]
        count = len(outlined) if masks == "all" else int(masks)
        kept = {sample.name for sample in draw(outlined, count, seed, f"mixed:{category}")}
        bare = (s if s.name in kept else replace(s, mask=None) for s in positive)
        reason = None if normal else no_normals(category)
        if not positive:
            reason = (
                f"'{category}' has no anomalous training images: protocol=supervised takes some of the test's"
            )
        notes = {
            "masks": masks,
            "anomalous": len(positive),
            "masks_kept": [sample.name for sample in positive if sample.name in kept],
        }
        train = by_name((*normal, *bare))
        yield Group(category, train, {category: tests(listed)}, skipped=reason, notes=notes)
