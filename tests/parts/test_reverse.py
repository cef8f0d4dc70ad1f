"""The blocks of reverse distillation: sizes, shortcuts, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ad_bench.parts.reverse import Block, OneClassEmbedding, ReverseDecoder, Size


@pytest.mark.parametrize(("size", "side"), [("halve", 4), ("keep", 8), ("double", 16)])
@pytest.mark.parametrize("bottleneck", [None, 0.25])
def test_a_block_changes_the_size_as_told(size: Size, side: int, bottleneck: float | None) -> None:
    out = Block(size, 6, 8, bottleneck)(torch.randn(2, 6, 8, 8))
    assert out.shape == (2, 8, side, side)
    assert out.min() >= 0


def test_the_shortcut_is_the_identity_where_it_can_be() -> None:
    block, maps = Block("keep", 4, 4, None), torch.rand(1, 4, 3, 3)
    nn.init.zeros_(block.body[-1].weight)  # type: ignore[arg-type]
    assert torch.equal(block(maps), maps)
    assert len(Block("keep", 4, 5, None).shortcut) == 2
    assert len(Block("double", 4, 4, None).shortcut) == 2


def test_convolutions_start_from_a_variance_of_2_over_the_fan_out() -> None:
    torch.manual_seed(0)
    layer = Block("keep", 32, 64, None).body[0]
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05)


def test_the_decoder_undoes_the_embeddings_sizes_finest_first() -> None:
    channels, sides = (3, 5, 7), (16, 8, 4)
    levels = [torch.rand(2, c, s, s + s // 2) for c, s in zip(channels, sides, strict=True)]
    embedded = OneClassEmbedding(channels, 1, None)(levels)
    assert embedded.shape == (2, 14, 2, 3)
    restored = ReverseDecoder(channels, [1, 2, 3], None)(embedded)
    assert [one.shape for one in restored] == [one.shape for one in levels]


def test_blocks_are_counted_from_the_deepest() -> None:
    decoder = ReverseDecoder((3, 5, 7), [1, 2, 3], None)
    assert [len(one) for one in decoder.stages] == [1, 2, 3]  # type: ignore[arg-type]
    assert decoder.stages[0][0].body[0].out_channels == 7  # type: ignore[index, union-attr]
