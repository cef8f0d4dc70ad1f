from __future__ import annotations

import pytest
import torch

from ad_bench.parts.pool import Cycle, Pool
from tests import tiny


def test_a_pool_gives_back_the_bytes() -> None:
    images = torch.randint(0, 256, (7, 3, 4, 6), generator=torch.Generator().manual_seed(0)) / 255
    labels = torch.tensor([0, 0, 1, 0, 1, 0, 1])
    pool = Pool(tiny.TensorTrainSet(images, labels, batch_size=3))
    assert len(pool) == 7
    torch.testing.assert_close(pool.images(torch.tensor([6, 2, 2])), images[[6, 2, 2]], rtol=0, atol=0)
    assert torch.equal(pool.labels, labels)


def test_categories_keep_their_images() -> None:
    pool = Pool(tiny.TensorTrainSet(torch.rand(4, 3, 2, 2)))
    pool.category = ("b", "a", "b", "b")
    found = pool.by_category()
    assert list(found) == ["a", "b"]
    assert found["b"].tolist() == [0, 2, 3]


def test_the_mean_image_and_an_order_with_repeats() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), generator=torch.Generator().manual_seed(0)) / 255
    pool = Pool(tiny.TensorTrainSet(images))
    torch.testing.assert_close(pool.mean(), images.double().mean(0).float(), rtol=1e-6, atol=0)
    batches = pool.order(3, 4, torch.Generator().manual_seed(0))
    assert [len(one) for one in batches] == [4, 4, 4, 3]
    assert torch.bincount(torch.cat(list(batches))).tolist() == [3] * 5
    again = pool.order(3, 4, torch.Generator().manual_seed(1))
    assert torch.cat(list(again)).tolist() != torch.cat(list(batches)).tolist()


def test_every_round_of_a_cycle_has_all_once() -> None:
    index = torch.tensor([3, 5, 8])
    cycle = Cycle(index, torch.Generator().manual_seed(0))
    drawn = torch.cat([cycle.take(2) for _ in range(60)])
    assert all(row.sort().values.tolist() == [3, 5, 8] for row in drawn.view(-1, 3))
    assert len({tuple(row.tolist()) for row in drawn.view(-1, 3)}) == 6, "always the same order"


def test_a_cycle_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    cycle = Cycle(torch.arange(5), generator)
    cycle.take(3)
    kept, random = cycle.state_dict(), generator.get_state()
    wanted = cycle.take(9)
    again = Cycle(torch.arange(5), torch.Generator())
    again.generator.set_state(random)
    again.load_state_dict(kept)
    assert torch.equal(again.take(9), wanted)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Cycle(torch.empty(0, dtype=torch.long), torch.Generator())
