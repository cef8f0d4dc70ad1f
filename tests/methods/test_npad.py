"""N-pad: as PaDiM where it is PaDiM, its windows and its scale by hand."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.npad import NPad
from ad_bench.methods.padim import PaDiM
from ad_bench.parts.backbone import Backbone
from tests import tiny


class Given(nn.Module):
    """Stands for a backbone: the images themselves are the only level."""

    name, layers, channels = "given", (1,), (3,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def npad(backbone: nn.Module, dimensions: int, window: int, weight: float, ratio: float = 0.01) -> NPad:
    return NPad(cast(Backbone, backbone), dimensions, 1024, window, 0.01, ratio, 10, weight, 0.0)


def test_a_window_of_one_without_centres_is_padim() -> None:
    backbone = Backbone("test_resnet.r160_in1k", [1, 2, 3], "random")
    train, test = tiny.TensorTrainSet(tiny.textures(9)), Inputs(tiny.planted(tiny.textures(3, seed=2))[0])
    plain, ours = PaDiM(backbone, 40, 1024, 0.01, 4.0), npad(backbone, 40, 1, 0.0)
    ours.sigma = 4.0
    plain.fit(train, Run())
    ours.fit(train, Run())
    torch.testing.assert_close(ours.predict(test).maps, plain.predict(test).maps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.predict(test).scores, plain.predict(test).scores, rtol=1e-4, atol=1e-4)


def test_distances_by_hand() -> None:
    """A Gaussian of all features in a window; a position takes the smallest of the windows that hold it."""
    train, test = tiny.textures(6, size=5), tiny.textures(1, size=5, seed=4)
    model = npad(Given(), 3, 3, 1.0, ratio=0.1)
    model.fit(tiny.TensorTrainSet(train), Run())
    found, euclidean = model.distances(test)
    table, queries = train.double().numpy(), test.double().numpy()[0]
    smallest = np.full((5, 5), np.inf)
    for top in range(3):
        for left in range(3):
            rows = table[:, :, top : top + 3, left : left + 3].transpose(0, 2, 3, 1).reshape(-1, 3)
            inverse = np.linalg.inv(np.cov(rows, rowvar=False) + 0.01 * np.eye(3))
            for row in range(top, top + 3):
                for column in range(left, left + 3):
                    distance = mahalanobis(queries[:, row, column], rows.mean(0), inverse)
                    smallest[row, column] = min(smallest[row, column], distance)
    np.testing.assert_allclose(found[0], smallest, rtol=1e-4)
    centres = model.centres.points
    assert len(centres) == 15
    torch.testing.assert_close(euclidean[0], torch.cdist(test[0].flatten(1).T, centres).amin(1).view(5, 5))


def test_a_shift_within_a_window_costs_little() -> None:
    """A bright line in the same column of all training images; in the test it lies beside it."""
    train = 0.02 * torch.rand(30, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    test = train[:1].clone()
    train[:, :, :, 3] += 0.9
    test[:, :, :, 4] += 0.9
    worst = []
    for window in (1, 3):
        model = npad(Given(), 3, window, 0.0, ratio=0.1)
        model.fit(tiny.TensorTrainSet(train), Run())
        worst.append(model.predict(Inputs(test)).scores.item())
    assert worst[0] > 4 * worst[1]


def test_the_euclidean_distance_is_standardised_at_each_position() -> None:
    """By the training images; no test image takes part."""
    train = tiny.textures(8, size=9)
    model = npad(Given(), 3, 3, 0.5)
    model.fit(tiny.TensorTrainSet(train), Run())
    mahalanobis, euclidean = model.distances(train)
    maps = model.predict(Inputs(train)).maps
    assert maps is not None
    added = (maps - mahalanobis) / 0.5
    torch.testing.assert_close(added.mean(0), torch.zeros(9, 9), rtol=0, atol=1e-4)
    torch.testing.assert_close(added.std(0), mahalanobis.std(0), rtol=1e-3, atol=1e-4)
    assert (torch.corrcoef(torch.stack([added[:, 4, 4], euclidean[:, 4, 4]]))[0, 1] > 0.999).all()


def test_one_image_is_enough() -> None:
    model = npad(Given(), 3, 1, 1.0, ratio=1.0)
    model.fit(tiny.TensorTrainSet(tiny.textures(1, size=6)), Run())
    prediction = model.predict(Inputs(tiny.textures(2, size=6, seed=3)))
    assert prediction.scores.isfinite().all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match="window is at least 1 position, rounds at least 0; got 0 and 10"):
        npad(Given(), 3, 0, 1.0)
    with pytest.raises(UsageError, match=r"weight at least 0; got 0\.01 and -1"):
        npad(Given(), 3, 1, -1.0)
    with pytest.raises(UsageError, match=r"window=7 is larger than the grid of \[6, 6\]"):
        npad(Given(), 3, 7, 1.0).fit(tiny.TensorTrainSet(tiny.textures(2, size=6)), Run())
