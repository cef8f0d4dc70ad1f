from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ad_bench.contract import Inputs, Run
from ad_bench.errors import DataError
from ad_bench.methods.mean_image import MeanImage
from tests import tiny


@pytest.mark.parametrize("batch_size", [1, 4, 99])
def test_equals_numpy(batch_size: int) -> None:
    train, test = tiny.textures(9), tiny.textures(2, seed=4)
    method = MeanImage(sigma=2.0)
    method.fit(tiny.TensorTrainSet(train, batch_size=batch_size), Run())
    prediction = method.predict(Inputs(test))
    mean = train.double().numpy().mean(0)
    wanted = np.stack([gaussian_filter(np.abs(x - mean).mean(0), 2.0) for x in test.double().numpy()])
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps.numpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(prediction.scores.numpy(), wanted.max((1, 2)), atol=1e-6)


def test_other_sizes_are_refused() -> None:
    method = MeanImage(sigma=0.0)
    method.fit(tiny.TensorTrainSet(tiny.textures(2)), Run())
    with pytest.raises(DataError, match=r"\(3, 32, 32\) cannot be compared"):
        method.predict(Inputs(torch.zeros(1, 3, 32, 32)))


def test_no_training_images() -> None:
    with pytest.raises(ValueError, match="no training images"):
        MeanImage(sigma=0.0).fit(tiny.TensorTrainSet(torch.empty(0, 3, 8, 8)), Run())
