"""Held-out images and the epoch they choose."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ad_bench.errors import UsageError
from ad_bench.parts.selection import Best, hold_out
from tests import tiny


def numbered(count: int) -> tiny.TensorTrainSet:
    """Images of one value each: byte i in image i."""
    return tiny.TensorTrainSet(
        (torch.arange(count).float() / 255).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    )


def values(images: torch.Tensor) -> list[int]:
    return [round(255 * float(one[0, 0, 0])) for one in images]


@pytest.mark.parametrize(("count", "share", "held"), [(209, 0.2, 42), (5, 0.2, 1), (1, 0.2, 0), (7, 0.0, 0)])
def test_every_image_is_on_one_side(count: int, share: float, held: int) -> None:
    seen, kept = hold_out(numbered(count), share, torch.Generator().manual_seed(0))
    assert (len(seen), len(kept)) == (count - held, held)
    both = [value for part in (seen, kept) for batch in part.batches(4) for value in values(batch)]
    assert sorted(both) == list(range(count))


def test_the_generator_draws_the_split() -> None:
    splits = [hold_out(numbered(50), 0.2, torch.Generator().manual_seed(seed))[1] for seed in (0, 0, 1)]
    pixels = [split.pixels for split in splits]
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


def test_bytes_lose_nothing() -> None:
    train = numbered(256)
    seen, _ = hold_out(train, 0.0, torch.Generator())
    assert torch.equal(torch.cat(list(seen.batches(100))), train.images)


def test_shuffled_passes_differ_and_the_last_batch_counts() -> None:
    seen, _ = hold_out(numbered(10), 0.0, torch.Generator())
    generator = torch.Generator().manual_seed(0)
    passes = [[values(batch) for batch in seen.batches(4, generator)] for _ in range(2)]
    assert [len(batch) for batch in passes[0]] == [4, 4, 2]
    assert passes[0] != passes[1]
    assert sorted(value for batch in passes[1] for value in batch) == list(range(10))
    assert values(next(seen.batches(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares_are_named(share: float) -> None:
    with pytest.raises(UsageError, match=str(share)):
        hold_out(numbered(4), share, torch.Generator())


def test_no_images() -> None:
    with pytest.raises(ValueError, match="0 images"):
        hold_out(tiny.TensorTrainSet(torch.empty(0, 3, 4, 4)), 0.2, torch.Generator())


@pytest.mark.parametrize(("latest", "epoch"), [(False, 1), (True, 2)])
def test_best_keeps_the_first_lowest_or_the_latest(latest: bool, epoch: int) -> None:
    layer = nn.Linear(1, 1, bias=False)
    best = Best(layer, latest)
    best.restore()  # nothing offered: as it is
    for number, (error, weight) in enumerate([(2.0, 10.0), (1.0, 20.0), (1.0, 30.0), (float("nan"), 40.0)]):
        nn.init.constant_(layer.weight, weight)
        best.offer(error, number)
    best.restore()
    assert (best.epoch, best.error, layer.weight.item()) == (epoch, 1.0, 10.0 * (epoch + 1))


def test_best_survives_a_checkpoint() -> None:
    layer = nn.Linear(1, 1)
    best = Best(layer)
    best.offer(1.0, 3)
    kept = layer.weight.item()
    other = nn.Linear(1, 1)
    resumed = Best(other)
    resumed.load_state_dict(best.state_dict())
    resumed.offer(1.5, 4)
    resumed.restore()
    assert (resumed.epoch, other.weight.item()) == (3, kept)
