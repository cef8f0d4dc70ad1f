"""SOMAD against the authors' code, and where their own leaves a hole."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.somad import SOMAD
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import features

FIXTURE = Path(__file__).parent / "fixtures" / "somad.npz"


class Written(nn.Module):
    """Stands for a backbone: an image holds the number of its features, as in the fixture's script."""

    name, layers = "written", (1, 2, 3)

    def __init__(self, shapes: list[tuple[int, ...]], count: int, seed: int) -> None:
        super().__init__()
        self.channels = tuple(shape[0] for shape in shapes)
        self.levels = []
        for level in features(shapes, count, seed):
            _, channels, rows, columns = level.shape
            place = torch.arange(rows)[:, None] / rows + 2 * torch.arange(columns) / columns
            raised = level + 2 * torch.sin(place * (1 + torch.arange(channels)[:, None, None]))
            self.levels.append(raised.float())

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


def numbered(numbers: range, side: int) -> Tensor:
    return torch.tensor([float(number) for number in numbers]).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def somad(backbone: nn.Module, dimensions: int, sigma: float = 0.0, nearest_nodes: int = 5) -> SOMAD:
    return SOMAD(cast(Backbone, backbone), dimensions, 1024, 20, 15, nearest_nodes, 0.01, sigma)


def test_agrees_with_the_authors_code() -> None:
    """The drawn channels, the trained nodes, which of them own features, and the maps after all."""
    reference = np.load(FIXTURE)
    train, test, side, seed = reference["images"].tolist()
    backbone = Written([tuple(shape) for shape in reference["shapes"]], train + test, seed)
    model = somad(backbone, len(reference["channels"]), 4.0)
    assert model.picked.tolist() == sorted(reference["channels"].tolist())
    model.fit(tiny.TensorTrainSet(numbered(range(train), side), batch_size=7), Run())
    # there the channels are not sorted, and columns come before rows
    rank = np.argsort(np.argsort(reference["channels"]))
    nodes = model.nodes.points[:, rank].view(6, 6, -1).transpose(0, 1)
    np.testing.assert_allclose(nodes.flatten(0, 1).numpy(), reference["nodes"], rtol=1e-4, atol=2e-6)
    owned = model.owned.points.view(6, 6).T.flatten().numpy()
    np.testing.assert_array_equal(owned, reference["owned"] > 0)
    prediction = model.predict(Inputs(numbered(range(train, train + test), side)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::2, ::3].numpy(), reference["maps"], rtol=1e-4)
    np.testing.assert_allclose(prediction.scores.numpy(), reference["scores"], rtol=1e-4)


def test_radii_are_those_of_the_published_map() -> None:
    """56 x 56 nodes: 19 to 3.17 and 4.67 to 1."""
    radii = somad(Written([(4, 2, 2)], 1, 0), 4).radii(56)
    assert len(radii) == 35
    assert [radii[0], radii[19], radii[20], radii[34]] == pytest.approx([19, 19 / 6, 56 / 12, 1])


def fitted() -> SOMAD:
    """Three nodes in a plane: one without features of its own, one with one, one with many."""
    model = somad(Written([(2, 1, 1)], 1, 0), 2, nearest_nodes=1)
    model.nodes.points = torch.tensor([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    rows = torch.tensor([[5.0, 0.0], [9.0, 1.0], [9.0, -1.0], [10.0, 0.0], [8.0, 0.0]])
    owner = torch.tensor([1, 2, 2, 2, 2])
    model.gaussian.fit_groups(rows, owner, 3)
    model.owned.points = torch.bincount(owner, minlength=3) > 0
    return model


def test_a_node_of_one_feature_measures_in_eps() -> None:
    assert fitted().distance(torch.tensor([[5.0, 0.2]])).item() == pytest.approx(0.2 / 0.1)


def test_where_no_near_node_owns_a_feature_the_nearest_that_does_is_asked() -> None:
    """And no other row changes that, where the authors take the highest distance of the test set."""
    model, alone = fitted(), torch.tensor([[0.0, 0.3]])
    wanted = (25 + 0.09) ** 0.5 / 0.1
    assert model.distance(alone).item() == pytest.approx(wanted)
    together = model.distance(torch.cat([alone, torch.tensor([[900.0, 0.0]])]))
    assert together[0].item() == pytest.approx(wanted)


def test_the_smallest_of_the_near_gaussians_counts() -> None:
    model = fitted()
    model.nearest_nodes = 3
    spread = 2 / 3 + 0.01  # of four rows, by three
    wanted = min((3.0**2) ** 0.5 / 0.1, 1.0 / spread**0.5)
    assert model.distance(torch.tensor([[8.0, 0.0]])).item() == pytest.approx(wanted, rel=1e-5)


def test_deeper_levels_are_stretched_corner_to_corner() -> None:
    model, images = somad(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), 272), tiny.textures(1)
    found, levels = model.embed(images), model.backbone(images)
    assert found.shape == (1, 16, 16, 272)
    for row, column in [(0, 0), (0, 15), (15, 0), (15, 15)]:
        corner = torch.cat([level[0, :, row and -1, column and -1] for level in levels])
        torch.testing.assert_close(found[0, row, column], corner)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1; got 0, 15 and 5"):
        SOMAD(cast(Backbone, Written([(4, 2, 2)], 1, 0)), 4, 1024, 0, 15, 5, 0.01, 4.0)
