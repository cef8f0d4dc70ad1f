"""Which fits a choice becomes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ad_bench import config
from ad_bench.runner.plan import make_plan


@pytest.mark.parametrize(
    ("words", "anomalies"), [(["method=devnet", "protocol=supervised"], 2), (["method=mean_image"], 0)]
)
def test_a_debug_run_takes_few_images_of_what_the_protocol_drew(
    words: list[str], anomalies: int, tmp_path: Path, cache: Path
) -> None:
    """Cut before the draw, ten labelled anomalies would leave none to test."""
    places = [f"paths.results={tmp_path}", f"paths.cache={cache}"]
    plan = make_plan(config.choices([*words, "dataset=synthetic", "runtime=debug", *places]))
    assert len(plan.fits) == 4
    for fit in plan.fits:
        assert fit.group.skipped is None
        assert Counter(s.label for s in fit.group.train) == Counter({0: 4 - anomalies, 1: anomalies})
        for tests in fit.group.tests.values():
            assert Counter(s.label for s in tests) == Counter({0: 4, 1: 4})


def test_the_few_images_are_few_of_each_category(tmp_path: Path, cache: Path) -> None:
    places = [f"paths.results={tmp_path}", f"paths.cache={cache}"]
    plan = make_plan(config.choices(["method=uniad", "dataset=synthetic", "runtime=debug", *places]))
    (fit,) = plan.fits
    assert set(Counter(s.category for s in fit.group.train).values()) == {4}
    assert len({s.category for s in fit.group.train}) == 4
