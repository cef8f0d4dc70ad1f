from __future__ import annotations

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.cbam import CBAM


def test_by_hand() -> None:
    """One pixel after the other: a weight for the channel, then one for the cell."""
    torch.manual_seed(0)
    module, maps = CBAM(4, 2, 3), torch.randn(2, 4, 5, 6)
    found = module(maps)
    first, _, last = module.channels
    for image, wanted in zip(maps, found, strict=True):
        told = 0
        for summary in (image.flatten(1).mean(1), image.flatten(1).amax(1)):
            inner = (first.weight[:, :, 0, 0] @ summary + first.bias).relu()
            told = told + last.weight[:, :, 0, 0] @ inner + last.bias
        weighed = image * torch.sigmoid(told)[:, None, None]
        padded = torch.nn.functional.pad(torch.stack([weighed.mean(0), weighed.amax(0)]), (1, 1, 1, 1))
        for row in range(5):
            for column in range(6):
                window = padded[:, row : row + 3, column : column + 3]
                weight = torch.sigmoid((module.cells.weight[0] * window).sum() + module.cells.bias)
                torch.testing.assert_close(wanted[:, row, column], weighed[:, row, column] * weight)


def test_an_image_does_not_hear_the_others() -> None:
    torch.manual_seed(0)
    module, maps = CBAM(8, 16, 7), torch.randn(3, 8, 9, 9)
    torch.testing.assert_close(module(maps)[1:2], module(maps[1:2]))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="odd width; got 16 and 4"):
        CBAM(4, 16, 4)
