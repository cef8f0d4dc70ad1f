"""The zero-shot protocol: no image of the target, normal or not, is seen before the test.

Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023, arXiv:2303.14814.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ad_bench.protocols.lists import tests
from ad_bench.samples import Group, Sample


def zero_shot(samples: Mapping[str, tuple[Sample, ...]], seed: int) -> Iterator[Group]:
    """One group without training images; every category is tested on its whole test set.

    The category's name may be known (text prompts). Nothing is drawn: `seed` changes the method alone.
    """
    yield Group("zero_shot", (), {category: tests(listed) for category, listed in samples.items()})
