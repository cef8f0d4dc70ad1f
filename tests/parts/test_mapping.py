"""Features mapped both ways: what is compared with what, and networks that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.mapping import MappedLevels, TwoWayMapping
from ad_bench.parts.positions import sine_positions

NAME = "test_resnet.r160_in1k"


def networks(layers: list[int] | None = None) -> tuple[Backbone, Backbone]:
    return Backbone(NAME, layers or [1, 2], "random"), Backbone(NAME, [1, 2], "random")


def test_each_side_is_told_by_the_other_alone() -> None:
    torch.manual_seed(0)
    mapping = TwoWayMapping(6, 10, 4).eval()
    one, other = torch.rand(2, 6, 3, 5), torch.rand(2, 10, 3, 5)
    told_one, told_other = mapping(one, other)
    assert (told_one.shape, told_other.shape) == (one.shape, other.shape)
    assert torch.equal(mapping(one, other + 1)[1], told_other)
    assert torch.equal(mapping(one + 1, other)[0], told_one)
    moved = one.clone()
    moved[:, :, 1, 2] += 1  # cell by cell
    changed = (mapping(moved, other)[1] - told_other).abs().amax((0, 1)) > 0
    assert changed.nonzero().tolist() == [[1, 2]]


def test_what_maps_rightly_is_no_anomaly() -> None:
    """Each network's features as the mapping of the other's: the distance is 0, else that of the vectors."""
    mapped, images = (
        MappedLevels(*networks(), latent=[4, 4], positions=False).eval(),
        torch.rand(2, 3, 64, 64),
    )

    class Known(nn.Module):
        factor = 1.0

        def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
            return self.factor * other, one  # both networks are the same here

    mapped.mappings = nn.ModuleList([Known(), Known()])
    assert mapped(images).max() == 0
    assert mapped.losses(images).tolist() == [0, 0]
    mapped.mappings[0].factor = -1.0  # the opposite one way on one of two levels: 4 / 2 / 2
    torch.testing.assert_close(mapped(images), torch.ones(2, 64, 64))
    width = mapped.first.channels[0]
    torch.testing.assert_close(mapped.losses(images), torch.tensor([4.0 / width, 0.0]))


def test_positions_are_added_to_what_goes_in() -> None:
    mapped = MappedLevels(*networks(), latent=[4, 4], positions=True)
    features = torch.rand(2, 8, 3, 5)
    torch.testing.assert_close(mapped.placed(features), features + sine_positions(8, 3, 5))
    mapped.positions = False
    assert mapped.placed(features) is features


def test_gradients_stay_in_the_mappings() -> None:
    mapped = MappedLevels(*networks(), latent=[4, 4], positions=False)
    mapped.losses(torch.rand(2, 3, 64, 64)).sum().backward()
    trained = {name.split(".")[0] for name, one in mapped.named_parameters() if one.grad is not None}
    assert trained == {"mappings"}


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"strides \[8, 16\] .* \[4, 8\]"):
        MappedLevels(*networks([2, 3]), latent=[4, 4], positions=False)
    with pytest.raises(UsageError, match=r"latent are 2 widths, one for each level; got \[4\]"):
        MappedLevels(*networks(), latent=[4], positions=False)
    odd = networks()
    odd[0].channels = (6, 8)
    with pytest.raises(UsageError, match=r"4, 8, 12.*\[6, 8\]"):
        MappedLevels(*odd, latent=[4, 4], positions=True)
