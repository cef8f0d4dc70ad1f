from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ad_bench.contract import Batch, Run
from ad_bench.parts.gather import gather
from tests import tiny


def test_every_image_has_its_place() -> None:
    images = tiny.textures(7, size=8)
    whole, means = gather(
        tiny.TensorTrainSet(images, batch_size=3), Run(), lambda x: [x.permute(0, 2, 3, 1), x.mean((2, 3))]
    )
    assert torch.equal(whole, images.permute(0, 2, 3, 1))
    assert torch.equal(means, images.mean((2, 3)))


class Short(tiny.TensorTrainSet):
    """Says nine images, whatever it holds."""

    def __len__(self) -> int:
        return 9

    def batches(self, *_: object, **__: object) -> Iterator[Batch]:
        yield from tiny.TensorTrainSet(self.images).batches()


@pytest.mark.parametrize("count", [0, 7])
def test_another_number_than_said_is_an_error(count: int) -> None:
    train = Short(tiny.textures(7, size=8)[:count])
    with pytest.raises(ValueError, match=f"says 9 images and gave {count}"):
        gather(train, Run(), lambda x: [x])
