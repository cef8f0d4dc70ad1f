from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ad_bench.contract import Inputs, Prediction, Run
from ad_bench.methods.random import Random
from tests import tiny


def predict(images: torch.Tensor, seed: int = 0) -> Prediction:
    method = Random()
    method.fit(tiny.TensorTrainSet(images), Run(seed=seed))
    return method.predict(Inputs(images))


def test_knows_nothing() -> None:
    """Uniform and independent of the defect, on the image and on its pixels."""
    images, masks = tiny.planted(tiny.textures(400, size=32))
    images[:200], masks[:200] = tiny.textures(200, size=32, seed=8), False
    prediction = predict(images)
    assert prediction.maps is not None
    assert roc_auc_score(masks.flatten(1).any(1), prediction.scores) == pytest.approx(0.5, abs=0.1)
    assert roc_auc_score(masks.flatten(), prediction.maps.flatten()) == pytest.approx(0.5, abs=0.02)
    assert prediction.scores.mean().item() == pytest.approx(0.5, abs=0.05)
    assert abs(np.corrcoef(prediction.scores, prediction.maps.mean((1, 2)))[0, 1]) < 0.2


def test_the_seed_and_the_bytes_decide() -> None:
    images = tiny.textures(3)
    one, other = predict(images), predict(images, seed=1)
    assert torch.equal(one.scores, predict(images).scores)
    assert not (one.scores == other.scores).any()
    images[0, 0, 0, 0] += 1e-3
    changed = predict(images)
    assert (one.scores == changed.scores).tolist() == [False, True, True]
