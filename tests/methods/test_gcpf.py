"""GCPF against the authors' code, one Gaussian by hand, and clusters that are known."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.gcpf import GCPF
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import features

FIXTURE = Path(__file__).parent / "fixtures" / "gcpf.npz"


class Written(nn.Module):
    """Stands for a backbone: an image holds the number of its features, as in the fixture's script."""

    layers = (1, 2, 3)

    def __init__(self, shapes: list[tuple[int, ...]], count: int, seed: int) -> None:
        super().__init__()
        self.levels = []
        for level in features(shapes, count, seed):
            _, channels, rows, columns = level.shape
            cell = torch.arange(rows)[:, None] + 2 * torch.arange(columns)
            stretched = level * (1 + 3 * ((torch.arange(channels)[:, None, None] + cell) % 3 == 0))
            self.levels.append(stretched.float())

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


class Given(nn.Module):
    """Stands for a backbone: the images themselves are the only level."""

    layers = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def numbered(numbers: range, side: int) -> Tensor:
    return torch.tensor([float(number) for number in numbers]).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def gcpf(backbone: nn.Module, clusters: int, sigma: float = 0.0, compat: bool = False) -> GCPF:
    return GCPF(cast(Backbone, backbone), clusters, 1000, 0.1, 1e-10, sigma, compat)


def fitted_as_the_authors(monkeypatch: pytest.MonkeyPatch, compat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Maps and scores of the fixture's test images, from the fixture's first centres."""
    reference = np.load(FIXTURE)
    train, test, side, seed = reference["images"].tolist()

    def first(count: int, generator: object) -> Tensor:
        """The script's rows; there columns come before rows."""
        grid = round((count / train) ** 0.5)
        image, cell = divmod(np.array([count // 7, count // 3, count // 2]), grid**2)
        return torch.from_numpy(image * grid**2 + cell % grid * grid + cell // grid)

    monkeypatch.setattr(torch, "randperm", first)
    backbone = Written([tuple(shape) for shape in reference["shapes"]], train + test, seed)
    model = gcpf(backbone, int(reference["clusters"]), 4.0, compat)
    model.fit(tiny.TensorTrainSet(numbered(range(train), side), batch_size=5), Run())
    prediction = model.predict(Inputs(numbered(range(train, train + test), side)))
    assert prediction.maps is not None
    return prediction.maps[:, ::3, ::5].numpy(), prediction.scores.numpy()


def test_agrees_with_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of their whole main(): k-means, Gaussian clustering, distances, smoothing."""
    maps, scores = fitted_as_the_authors(monkeypatch, compat=True)
    np.testing.assert_allclose(maps, np.load(FIXTURE)["maps"], rtol=1e-4)
    np.testing.assert_allclose(scores, np.load(FIXTURE)["scores"], rtol=1e-4)


def test_without_compat_the_last_row_is_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, _ = fitted_as_the_authors(monkeypatch, compat=False)
    apart = np.abs(maps / np.load(FIXTURE)["maps"] - 1).max()
    assert 1e-3 < apart < 0.5


def test_one_cluster_is_one_shrunk_gaussian() -> None:
    train, test = tiny.textures(4, size=8), tiny.planted(tiny.textures(2, size=8, seed=3))[0]
    model = gcpf(Given(), 1)
    model.fit(tiny.TensorTrainSet(train), Run())
    maps = model.predict(Inputs(test)).maps
    assert maps is not None
    known = LedoitWolf().fit(train.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy())
    for row, column in [(0, 0), (3, 5), (7, 7)]:
        wanted = mahalanobis(test[1, :, row, column].double().numpy(), known.location_, known.precision_)
        assert maps[1, row, column].item() == pytest.approx(wanted, rel=1e-4)


def test_well_separated_gaussians_are_found() -> None:
    """Three of different shapes: each pixel's nearest Gaussian is that which made it."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    mixings = torch.diag_embed(torch.tensor([[1.0, 0.2, 0.5], [0.3, 1.0, 0.3], [1.0, 1.0, 0.1]]))
    names = torch.randint(3, (6, 20, 20), generator=generator)
    noise = torch.randn(6, 20, 20, 1, 3, generator=generator)
    images = ((noise @ mixings[names])[..., 0, :] + places[names]).permute(0, 3, 1, 2)
    model = gcpf(Given(), 3)
    model.fit(tiny.TensorTrainSet(images), Run(seed=1))
    from ad_bench.methods.gcpf import distances

    rows = images.permute(0, 2, 3, 1).flatten(0, 2)
    found = distances(rows, model.means[0].points, model.whitenings[0].points).argmin(1)  # type: ignore[arg-type]
    table = torch.zeros(3, 3)
    table.index_put_((names.flatten(), found), torch.ones(len(found)), accumulate=True)
    assert (table > 0).sum() == 3, table
    for cluster in found[:50].unique().tolist():
        members = rows[found == cluster]
        mean = cast(Tensor, model.means[0].points)[cluster]
        torch.testing.assert_close(mean, members.mean(0), rtol=1e-4, atol=1e-4)


def test_an_image_scores_as_its_worst_pixel_of_all_levels_mean() -> None:
    model = gcpf(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), 2)
    model.fit(tiny.TensorTrainSet(tiny.textures(6)), Run())
    prediction = model.predict(Inputs(tiny.textures(2, seed=4)))
    assert prediction.maps is not None
    torch.testing.assert_close(prediction.scores, prediction.maps.amax((1, 2)))
    assert [len(mean.points) for mean in model.means] == [2, 2, 2]  # type: ignore[arg-type]


def test_nothing_to_cluster_is_named() -> None:
    with pytest.raises(UsageError, match="at least 1; got 0 and 1000"):
        gcpf(Given(), 0)
