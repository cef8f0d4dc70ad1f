"""Vectors of patches and the classifier of neighbours."""

from __future__ import annotations

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.patchwise import PatchEncoders, Relation


def encoders() -> PatchEncoders:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", [0, 1], "random")
    return PatchEncoders(backbone, [8, 32], [[3, 2], [3, 3, 2, 2, 2]], [[8], [8, 8, 8, 8]], 6).eval()


def test_slid_vectors_are_those_of_the_patches_alone() -> None:
    networks, images = encoders(), torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    for level, (size, stride) in enumerate([(8, 8), (32, 4)]):
        found = networks.slid(level, images, stride)
        assert found.shape == (2, (40 - size) // stride + 1, (48 - size) // stride + 1, 6)
        assert found.abs().max() <= 1
        for row, column in ((0, 0), (2, 3)):
            patch = images[:, :, row * stride :, column * stride :][:, :, :size, :size]
            with torch.no_grad():
                torch.testing.assert_close(
                    found[:, row, column], networks(level, patch), rtol=1e-4, atol=1e-6
                )


def test_both_sizes_train_the_network_that_they_share() -> None:
    networks = encoders()
    networks(0, torch.rand(2, 3, 8, 8)).sum().backward()
    first, second = networks.features.stages
    assert all(one.grad is not None for one in first.parameters())
    assert all(one.grad is None for one in second.parameters())  # the smaller size needs no more
    assert all(one.grad is None for one in networks.heads[1].parameters())
    networks(1, torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(one.grad is not None for one in networks.parameters())


def test_a_relation_sees_the_difference_and_the_direction_of_each_column() -> None:
    torch.manual_seed(0)
    relation = Relation(6, [5, 4], 12, frozen=True)
    one, other = torch.rand(2, 3, 6)
    logits = relation(one, other)
    assert logits.shape == (3, 12)
    torch.testing.assert_close(relation(one + 1, other + 1), logits)
    relation.last.weight.data *= torch.tensor([1.0, 2.0, 3.0, 0.5])
    torch.testing.assert_close(relation(one, other), logits)
    relation.last.weight.data[0] *= 2
    assert not torch.allclose(relation(one, other), logits)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_last_weights_do_not_learn(frozen: bool) -> None:
    relation = Relation(6, [5], 8, frozen)
    relation(torch.rand(3, 6), torch.rand(3, 6)).square().sum().backward()
    assert (relation.last.weight.grad is None) == frozen
    assert relation.last.bias.grad is not None


def test_heads_that_leave_more_than_a_cell_are_refused() -> None:
    backbone = Backbone("test_resnet.r160_in1k", [1], "random")
    with pytest.raises(UsageError, match="8 cells that 32 pixels have at a stride of 4"):
        PatchEncoders(backbone, [32], [[3, 3]], [[8]], 6)
    with pytest.raises(UsageError, match="one for each layer"):
        PatchEncoders(backbone, [32, 64], [[3, 3]], [[8]], 6)
