"""A contrario against the authors' code, and what its paper says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ad_bench.contract import Inputs
from ad_bench.errors import UsageError
from ad_bench.methods.a_contrario import AContrario
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "a_contrario.npz")


def model(backbone: Backbone | None = None, norms: str = "image", components: int = 5) -> AContrario:
    backbone = backbone or Backbone("test_resnet.r160_in1k", [1], "random")
    return AContrario(backbone, norms, 0.125, components, 256, 0.5, 144.0)


def test_features_squares_and_map_agree_with_the_authors_code() -> None:
    backbone = Backbone("resnet50.tv_in1k", [1], "random").double()
    normalise_in_float64(backbone)
    fill(backbone.network, 1000)
    method = model(backbone)
    image = pixels(1, 64, 2)
    with torch.no_grad():
        features = method.features(image)
        prediction = method.predict(Inputs(image))
        method.grid = 16
        squares = method.squares(image)[0]
    np.testing.assert_allclose(features[0, ::16], REFERENCE["features"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(squares, REFERENCE["squares"], rtol=1e-4, atol=1e-6)
    assert prediction.maps is not None
    np.testing.assert_allclose(-prediction.maps[0], REFERENCE["whole"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(prediction.scores[0], -REFERENCE["lowest"], rtol=1e-4)


def test_squares_have_mean_one_and_do_not_depend_on_each_other() -> None:
    method = model()
    method.grid = 16
    with torch.no_grad():
        squares = method.squares(tiny.textures(1))[0]
    assert squares.shape == (5, 16, 16)
    torch.testing.assert_close(squares.mean((1, 2)), torch.full((5,), 255 / 256), rtol=1e-4, atol=0)


def test_norms_are_the_images_or_the_pretrained() -> None:
    image = tiny.textures(1)
    own, given = model(), model(norms="pretrained")
    with torch.no_grad():
        assert not torch.allclose(own.features(image), given.features(image), rtol=0.1)
        # twice the contrast is what a batch norm of the image takes away
        one, other = (own.features(factor * image)[0].flatten(1) for factor in (1.0, 2.0))
        assert F.cosine_similarity(one, other).min() > 0.99


def test_a_small_defect_stands_out() -> None:
    """A square of 8 pixels in a woven texture, without any training image."""
    method = model(Backbone("test_resnet.adbench", [1], "bundled"), components=16)
    images, place = tiny.textures(3, 128, seed=3), (slice(None), slice(50, 58), slice(60, 68))
    broken = images.clone()
    broken[:, :, 50:58, 60:68] = torch.tensor([0.95, 0.9, 0.1]).view(1, 3, 1, 1)
    with torch.no_grad():
        normal, found = method.predict(Inputs(images)), method.predict(Inputs(broken))
    assert found.scores.min() > normal.scores.max()
    assert found.maps is not None
    assert (found.maps[place].mean((1, 2)) > found.maps.mean((1, 2)) + 5).all()


def test_no_other_image_has_a_say() -> None:
    method, images = model(), tiny.textures(3)
    with torch.no_grad():
        alone = torch.cat([method.predict(Inputs(image[None])).scores for image in images])
        together = method.predict(Inputs(images)).scores
    torch.testing.assert_close(together, alone)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="image, pretrained; got 'batch'"):
        model(norms="batch")
    with pytest.raises(UsageError, match=r"at least 1.* got"):
        model(components=0)
    with pytest.raises(UsageError, match="Take a ResNet"):
        model(Backbone("mobilenetv2_050.lamb_in1k", [1], "random"))
