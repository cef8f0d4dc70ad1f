"""Gaussian AD against the authors' code, scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.gaussian_ad import GaussianAD
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "gaussian_ad.npz")
STAGES = ["stem", *(f"blocks.{number}" for number in range(7)), "head"]


def model(directions: str = "all", variance: float = 0.99) -> GaussianAD:
    return GaussianAD(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), directions, variance, 1e-10)


@pytest.mark.parametrize(("directions", "levels"), [("all", 9), ("main", 3), ("rest", 3)])
def test_distances_agree_with_the_authors_code(directions: str, levels: int) -> None:
    backbone = Backbone("tf_efficientnet_b0.aa_in1k", STAGES[:levels], "random")
    method = GaussianAD(backbone, directions, 0.9, 1e-14).double()
    normalise_in_float64(backbone)
    fill(backbone.network, 1000)
    method.fit(tiny.TensorTrainSet(pixels(40, 64, 1), batch_size=16), Run())
    images = pixels(4, 64, 2)
    with torch.no_grad():
        found = [g.mahalanobis(rows) for g, rows in zip(method.gaussians, method.embed(images), strict=True)]  # type: ignore[operator]
        prediction = method.predict(Inputs(images))
    np.testing.assert_allclose(torch.stack(found), REFERENCE[f"{directions}/levels"], rtol=1e-5)
    np.testing.assert_allclose(prediction.scores, REFERENCE[f"{directions}/scores"], rtol=1e-5)
    kept = [len(gaussian.whitening.points) for gaussian in method.gaussians]  # type: ignore[union-attr, arg-type]
    assert kept == REFERENCE[f"{directions}/kept"].tolist()
    assert prediction.maps is None


def rows(count: int = 30) -> Tensor:
    """Ten channels of falling spread."""
    draws = torch.randn(count, 10, generator=torch.Generator().manual_seed(3))
    return draws * torch.tensor([8.0, 5, 4, 3, 2, 1, 0.5, 0.2, 0.1, 0.05])


def test_main_and_rest_meet_where_the_variance_is_reached() -> None:
    """`main` ends with the direction that reaches it, `rest` begins with the one before, as the authors'."""
    main, rest = (model(one, 0.9).basis(rows()) for one in ("main", "rest"))
    assert main is not None
    assert rest is not None
    pca = PCA().fit(rows().numpy())
    count = int((pca.explained_variance_ratio_.cumsum() < 0.9).sum()) + 1
    assert len(main) == count
    assert len(rest) == 10 - count + 2
    assert np.abs((main.numpy() * pca.components_[:count]).sum(1)) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close((rest[:2] * main[-2:]).sum(1).abs(), torch.ones(2), rtol=1e-4, atol=0)


def test_directions_without_variance_are_left_out() -> None:
    few = rows(4)  # which span three directions
    rest = model("rest", 0.1).basis(few)
    assert rest is not None
    assert len(rest) == 3
    assert model("rest").basis(few[:1].expand(5, -1)) is None
    assert model("main").basis(few[:1]) is None


def test_a_defect_is_farther_and_one_image_is_enough() -> None:
    method = model()
    clean = tiny.textures(16)
    method.fit(tiny.TensorTrainSet(clean), Run())
    with torch.no_grad():
        normal = method.predict(Inputs(tiny.textures(4, seed=3))).scores
        broken = method.predict(Inputs(tiny.planted(tiny.textures(4, seed=3))[0])).scores
    assert broken.min() > normal.max()
    method.fit(tiny.TensorTrainSet(clean[:1]), Run())
    with torch.no_grad():
        assert method.predict(Inputs(clean[:1])).scores.item() == pytest.approx(0, abs=1.0)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="all, main, rest; got 'pca'"):
        model("pca")
    with pytest.raises(UsageError, match="between 0 and 1; got 1"):
        model("main", 1.0)
