"""Features in memory: batches of them, in order or shuffled by the run's seed."""

from __future__ import annotations

import torch
from torch import Tensor

from ad_bench.contract import Run
from ad_bench.parts.extracted import Extracted
from tests import tiny


def made(seed: int = 0) -> Extracted:
    """Of ten images: the number of each, and its double at another shape."""
    images = torch.arange(10.0).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    def embed(batch: Tensor) -> list[Tensor]:
        number = batch[:, 0, 0, 0]
        return [number, (2 * number)[:, None].expand(-1, 3)]

    return Extracted(tiny.TensorTrainSet(images), Run(seed), embed)


def test_a_pass_in_order_and_all_at_once() -> None:
    features = made()
    assert len(features) == 10
    parts = list(features.batches(4))
    assert [len(one) for one, _ in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([one for one, _ in parts]), torch.arange(10.0))
    ((one, other),) = features.batches()
    assert torch.equal(other, 2 * one[:, None].expand(-1, 3))


def test_shuffled_passes_keep_images_together_and_follow_the_seed() -> None:
    features, again, else_seeded = made(), made(), made(1)
    passes = [torch.cat([one for one, _ in features.batches(4, shuffle=True)]) for _ in range(2)]
    assert all(torch.equal(one.sort().values, torch.arange(10.0)) for one in passes)
    assert not torch.equal(passes[0], passes[1])
    assert torch.equal(torch.cat([one for one, _ in again.batches(4, shuffle=True)]), passes[0])
    assert not torch.equal(torch.cat([one for one, _ in else_seeded.batches(4, shuffle=True)]), passes[0])
    for one, other in features.batches(3, shuffle=True):
        assert torch.equal(other[:, 0], 2 * one)
