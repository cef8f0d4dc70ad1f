from __future__ import annotations

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.scales import at_scales, check_scales


def test_each_scale_takes_every_second_pixel_of_the_last() -> None:
    backbone = Backbone("test_resnet.r160_in1k", [2], "random")
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found = at_scales(backbone, images, 3)
        wanted = [backbone(images[..., ::step, ::step])[0] for step in (1, 2, 4)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert check_scales(backbone, 3) == 48


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"one layer .* got \[2, 3\]"):
        check_scales(Backbone("test_resnet.r160_in1k", [2, 3], "random"), 1)
    with pytest.raises(UsageError, match="at least 1; got 0"):
        check_scales(Backbone("test_resnet.r160_in1k", [2], "random"), 0)
