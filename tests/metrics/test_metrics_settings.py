"""The `metric` group: what it means, and what is refused before anything runs."""

import math

import pytest

from ad_bench.errors import UsageError
from ad_bench.metrics.settings import MetricSettings


def test_nothing_given_adds_nothing():
    settings = MetricSettings.from_config(None)
    assert settings == MetricSettings()
    assert settings.chosen("image_", False) == ["image_auroc", "image_aupr", "image_f1max"]
    assert settings.chosen("pixel_", False) == [
        "pixel_auroc", "pixel_aupr", "pixel_f1max", "pixel_iou", "pixel_aupro",
    ]  # fmt: skip
    assert settings.replicates == 0
    assert settings.memory == math.inf


def test_one_metric_for_each_limit():
    settings = MetricSettings.from_config({"aupro_limits": [0.05, 0.3], "spro_limits": [0.05, 1]})
    assert settings.chosen("pixel_aupro", False) == ["pixel_aupro@0.05", "pixel_aupro"]
    assert settings.chosen("pixel_spro", True) == ["pixel_spro", "pixel_spro@1"]
    assert settings.chosen("pixel_spro", False) == [], "only where defects have saturation areas"
    named = MetricSettings.from_config({"names": ["pixel_aupro@0.1", "image_auroc"]})
    assert named.chosen("pixel_", True) == ["pixel_aupro@0.1"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": ["image_auroc"]}, r"no key 'name'.*names"),
        ({"names": "image_auroc"}, r"metric.names=\[image_auroc\]"),
        ({"names": ["image_aurok"]}, r"no metric 'image_aurok'.*image_auroc"),
        ({"aupro_limits": 0.3}, r"aupro_limits=0.3 is a list"),
        ({"aupro_limits": [0.3, 0]}, r"aupro_limits=0 must be"),
        ({"spro_limits": [1.1]}, r"spro_limits=1.1 must be"),
        ({"intervals": {"replicates": -1}}, r"replicates=-1"),
        ({"intervals": {"replicates": 1}}, r"replicates=1 must"),
        ({"intervals": {"level": 1}}, r"level=1 must be .* below 1"),
        ({"threshold": {"pixel": "high"}}, r"threshold.pixel=high"),
        ({"threshold": {"image": float("nan")}}, r"threshold.image=nan"),
        ({"compat": ["imiat"]}, r"no 'imiat'.*imiad"),
        ({"memory": 0}, r"memory=0 must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(config, said):
    with pytest.raises(UsageError, match=said):
        MetricSettings.from_config(config)
