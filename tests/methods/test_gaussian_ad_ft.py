"""Gaussian AD with fine-tuning: what it begins with, what it learns, and when it stops."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.methods.gaussian_ad import GaussianAD
from ad_bench.methods.gaussian_ad_ft import GaussianADFineTuned
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.selection import hold_out
from ad_bench.parts.shrunk import ShrunkGaussian, ledoit_wolf
from tests import tiny


def backbone() -> Backbone:
    return Backbone("test_resnet.adbench", [1, 2, 3], "bundled")


def model(validation: float = 0.25, epochs: int = 3, rate: float = 1e-5) -> GaussianADFineTuned:
    pasting = ((0.02, 0.15), 0.3, (2, 16), (10, 25), 45.0, 0.1)
    optimizer = partial(torch.optim.Adam, lr=rate)
    return GaussianADFineTuned(backbone(), 1e-10, validation, *pasting, epochs, 4, optimizer)


def test_before_any_step_it_is_gaussian_ad() -> None:
    train, images = tiny.TensorTrainSet(tiny.textures(12)), tiny.textures(3, seed=5)
    tuned, plain = model(validation=0.0, epochs=0), GaussianAD(backbone(), "all", 0.99, 1e-10)
    with torch.no_grad():
        for method in (tuned, plain):
            method.fit(train, Run())
        found, wanted = (method.eval().predict(Inputs(images)).scores for method in (tuned, plain))
    # what is held in memory are bytes: these images are no whole ones
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0)


def test_the_gradient_is_twice_the_precision_times_the_offset() -> None:
    torch.manual_seed(0)
    rows, x = torch.randn(30, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    gaussian = ShrunkGaussian(1e-12)
    gaussian.fit(rows)
    x.requires_grad_()
    gaussian.squared(x).sum().backward()
    mean, covariance = ledoit_wolf(rows)
    precision = torch.linalg.inv(covariance)
    torch.testing.assert_close(x.grad, 2 * (x.detach() - mean) @ precision)


def test_training_draws_normal_images_to_gaussians_that_stay() -> None:
    method, train = model(0.0, epochs=10, rate=3e-6), tiny.TensorTrainSet(tiny.textures(12))
    held: list[Tensor] = []
    loss = method.loss

    def told(images: Tensor) -> Tensor:
        held.append(method.gaussians[0].whitening.points.clone())  # type: ignore[union-attr, operator]
        return loss(images)

    method.loss = told  # type: ignore[method-assign]
    seen, _ = hold_out(train, 0.0, torch.Generator())
    method.features.eval()
    method.estimate(seen)
    before = loss(train.images).item()
    norms = {key: value.clone() for key, value in method.state_dict().items() if "running" in key}
    method.fit(train, Run())
    assert loss(train.images).item() < before - 0.01
    assert all(torch.equal(one, held[0]) for one in held)
    assert norms
    assert all(torch.equal(method.state_dict()[key], value) for key, value in norms.items())


class Told(Run):
    def note(self, **facts: object) -> None:
        self.facts = facts


TIED, FORGETS = [0.1, 0.1, 0.1, 0.1], [0.1, 0.2, 0.2, 0.2]


@pytest.mark.parametrize(("errors", "chosen"), [([0.3, 0.2, 0.1, 0.2], 2), (TIED, 3), (FORGETS, 0)])
def test_the_epoch_that_tells_changed_images_best_is_kept(errors: list[float], chosen: int) -> None:
    """The first of them is the network as it came."""
    method, run, states = model(), Told(), []
    given = iter(errors)

    def error(*_: object) -> float:
        states.append(next(method.features.parameters()).detach().clone())
        return next(given)

    method.error = error  # type: ignore[method-assign]
    method.fit(tiny.TensorTrainSet(tiny.textures(12)), run)
    assert run.facts == {"validation_images": 3, "chosen_epoch": chosen}
    assert torch.equal(next(method.features.parameters()), states[chosen])
    assert not torch.equal(states[0], states[1])


def test_errors_are_pairs_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    method = model()
    _, held = hold_out(tiny.TensorTrainSet(tiny.textures(12)), 0.5, torch.Generator())
    changed = method.changed(held, torch.Generator().manual_seed(0))
    differ = (changed.pixels != held.pixels).any(1).flatten(1).float().mean(1)
    assert (differ > 0.001).all()
    assert (differ < 0.2).all()
    scores = iter([torch.tensor([[1.0, 4.0, 9.0, 16.0]]), torch.tensor([[1.0, 1.0]])])
    scores = iter([*scores, torch.tensor([[4.0, 25.0, 36.0, 49.0]]), torch.tensor([[64.0, 81.0]])])
    monkeypatch.setattr(method, "squared", lambda images: next(scores))
    # normal 1 2 3 4 1 1, changed 2 5 6 7 8 9: of 36 pairs 2 are wrong and one is even
    assert method.error(held, changed) == pytest.approx(2.5 / 36)
