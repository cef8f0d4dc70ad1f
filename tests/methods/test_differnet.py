"""DifferNet against the authors' code, and what its paper says of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.differnet import DifferNet
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "differnet.npz")
ADAM = partial(torch.optim.Adam, lr=2e-4, betas=(0.8, 0.8), eps=1e-4, weight_decay=1e-5)


def model(backbone: Backbone | None = None, **changed: int) -> DifferNet:
    settings: dict[str, int | float] = {
        "scales": 3,
        "steps": 3,
        "hidden": 24,
        "clamp": 3.0,
        "train_copies": 2,
        "test_copies": 4,
        "sigma": 3.0,
        "epochs": 1,
        "batch_size": 4,
        **changed,
    }
    torch.manual_seed(0)
    backbone = backbone or Backbone("test_resnet.r160_in1k", [3], "random")
    return DifferNet(backbone, optimizer=ADAM, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written() -> DifferNet:
    """AlexNet and flow with the weights that the authors' code was given."""
    method = model(Backbone("alexnet.tv_in1k", [3], "random")).double().eval()
    normalise_in_float64(method.backbone)
    fill(method.backbone.network, 1000)
    fill(method.flow, 2000)
    return method


def test_loss_and_gradient_agree_with_the_authors_code(written: DifferNet) -> None:
    losses, z = written.losses(pixels(3, 256, 1))
    np.testing.assert_allclose(z.detach()[:, ::16], REFERENCE["z"], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(losses.mean().item(), REFERENCE["loss"], rtol=1e-6)
    losses.mean().backward()
    gradients = [one.grad for one in written.flow.parameters() if one.grad is not None]
    np.testing.assert_allclose([float(one.norm()) for one in gradients], REFERENCE["norms"], rtol=1e-5)
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, REFERENCE["gradient"], rtol=1e-5, atol=1e-12)


def test_scores_and_maps_agree_with_the_authors_code(written: DifferNet) -> None:
    """Whose map has the mean over the copies once more in it, squared."""
    with torch.no_grad():
        prediction = written.predict(Inputs(pixels(2, 256, 2)))
    np.testing.assert_allclose(prediction.scores, REFERENCE["scores"], rtol=1e-5)
    assert prediction.maps is not None
    found = prediction.maps[:, ::8, ::8].numpy() / 4**2
    np.testing.assert_allclose(found, REFERENCE["maps"], rtol=1e-4, atol=1e-6 * REFERENCE["maps"].max())


def test_a_trained_flow_knows_its_images_from_noise() -> None:
    method = model(epochs=15, hidden=64)
    train = tiny.TensorTrainSet(tiny.textures(8))
    method.fit(train, Run())
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        normal = method.eval().predict(Inputs(train.images)).scores
        strange = method.predict(Inputs(noise)).scores
    assert strange.min() > normal.max()


def test_every_image_is_turned_and_the_last_copy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = model(train_copies=3, epochs=1), []
    whole = method.losses
    monkeypatch.setattr(method, "losses", lambda images: seen.append(images) or whole(images))  # type: ignore[func-returns-value]
    ones = torch.ones(5, 3, 64, 64)
    method.fit(tiny.TensorTrainSet(ones), Run())
    assert [len(one) for one in seen] == [12, 3]
    black = (torch.cat(seen) == 0).flatten(1).float().mean(1)
    assert black.max() > 0.1, "nothing was turned"
    assert black.unique().numel() > 10, "all copies are turned alike"


def test_a_score_is_that_of_the_mean_copy() -> None:
    """Test copies are turned by even steps: an image turned by one of them scores the same."""
    method, image = model().eval(), tiny.textures(1)
    fill(method.flow, 1)
    with torch.no_grad():
        one = method.predict(Inputs(image)).scores
        other = method.predict(Inputs(torch.rot90(image, 1, (2, 3)))).scores
        method.test_copies = 1
        alone = [method.predict(Inputs(torch.rot90(image, times, (2, 3)))).scores for times in range(4)]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0], one, rtol=1e-3)


def test_only_the_flow_is_trained() -> None:
    method = model()
    trained = [name for name, one in method.named_parameters() if one.requires_grad]
    assert trained
    assert all(name.startswith("flow.") for name in trained)
    hidden = [one for one in method.flow.modules() if isinstance(one, nn.Linear)]
    assert len(hidden) == 3 * 2 * 4


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"one layer .* got \[2, 3\]"):
        model(Backbone("test_resnet.r160_in1k", [2, 3], "random"))
    with pytest.raises(UsageError, match="at least 1; got 2, 0"):
        model(test_copies=0)
