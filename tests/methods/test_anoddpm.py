"""AnoDDPM against the authors' loss, gradients and restored images, and what the paper says of its noise."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods import anoddpm
from ad_bench.methods.anoddpm import AnoDDPM
from ad_bench.parts.denoiser import Denoiser
from tests import tiny
from tests.written_down import fill, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "anoddpm.npz")
ADAM = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.0)


def model(base: int = 8, **changed: object) -> AnoDDPM:
    torch.manual_seed(0)
    denoiser = Denoiser(base, [1, 2, 2], [1, 2], 2, 2 if base == 32 else 1, min(base, 32), 0.0, 3)
    settings = {"steps": 50, "betas": "linear", "trained_steps": 40, "distance": 6, "chains": 1}
    settings |= {"octaves": 6, "persistence": 0.8, "frequency": 64}
    settings |= {"epochs": 1, "batch_size": 4, "clip": 1.0, "decay": 0.9, "optimizer": ADAM}
    return AnoDDPM(denoiser, **{**settings, **changed})  # type: ignore[arg-type]


def test_noise_agrees_with_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given its permutations, three for each image, but for what its sum leaves out."""
    left = iter(torch.from_numpy(REFERENCE["loss_tables"]).long().split(3))
    monkeypatch.setattr(anoddpm, "random_tables", lambda count, draws: next(left))
    noise = [model().noise(torch.zeros(1, 3, 32, 32), time, torch.Generator()) for time in (7, 31)]
    np.testing.assert_allclose(torch.cat(noise), REFERENCE["loss_noise"], atol=2e-4)


def test_loss_and_gradients_agree_with_the_authors_code() -> None:
    method, images, times = model(32).double(), pixels(2, 32, 1), torch.tensor([7, 31])
    fill(method.denoiser, 1000)
    network = method.denoiser.requires_grad_(True)
    noise = torch.from_numpy(REFERENCE["loss_noise"]).double()
    loss = method.loss(network, images, noise, times)
    loss.backward()
    np.testing.assert_allclose(loss.item(), REFERENCE["loss"], rtol=1e-9)
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    norms = [float(one.norm()) for one in gradients]
    np.testing.assert_allclose(norms, REFERENCE["norms"], rtol=1e-6, atol=1e-10)
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, REFERENCE["gradient"], rtol=1e-6, atol=1e-10)


def test_maps_agree_with_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noised by six steps at once, led back one by one with fresh noise."""
    method = model(32).double().eval()
    fill(method.denoiser, 1000)
    left = iter(torch.from_numpy(REFERENCE["test_noise"]).double().split(1))
    monkeypatch.setattr(method, "noise", lambda like, time, draws: next(left))
    with torch.no_grad():
        prediction = method.predict(Inputs(pixels(1, 32, 2)))
    assert next(left, None) is None
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps, REFERENCE["maps"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(prediction.scores, prediction.maps.amax((1, 2)))


def test_training_predicts_noise_and_restores_what_it_knows() -> None:
    normal, held = tiny.textures(12, 32), tiny.textures(4, 32, seed=9)
    method = model(epochs=6, batch_size=2, octaves=3, frequency=16, optimizer=partial(ADAM, lr=5e-3))

    def unknown() -> float:
        draws, times = torch.Generator().manual_seed(5), torch.tensor([2, 8, 16, 30])
        noise = torch.cat([method.noise(held[:1], int(time), draws) for time in times])
        with torch.no_grad():
            return float(method.loss(method.denoiser, held, noise, times))

    before = unknown()
    method.fit(tiny.TensorTrainSet(normal), Run())
    assert unknown() < 0.6 * before
    broken, masks = tiny.planted(held)
    with torch.no_grad():
        good, bad = method.eval().predict(Inputs(held)), method.predict(Inputs(broken))
    assert bad.scores.min() > good.scores.max()
    assert bad.maps is not None
    assert bad.maps[masks].mean() > 2 * bad.maps[~masks].mean()


def test_an_image_that_is_not_noised_comes_back() -> None:
    images = tiny.textures(2)
    assert torch.equal(model().restored(images, 0, torch.Generator()), images)


def test_the_noise_of_the_tests_is_that_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for each image of a batch, at each time another, and another after a fit of another seed."""
    method, images = model(epochs=0), tiny.textures(3, 32)
    drawn: list[Tensor] = []
    real = method.noise

    def noise(like: Tensor, time: int, draws: torch.Generator) -> Tensor:
        drawn.append(real(like, time, draws))
        return drawn[-1]

    monkeypatch.setattr(method, "noise", noise)
    for seed in (0, 0, 1):
        method.fit(tiny.TensorTrainSet(images), Run(seed=seed))
        method.predict(Inputs(images))
    one, again, other = torch.stack(drawn).split(6)  # forward, then back from times 5 to 1
    assert one.shape == (6, 1, 3, 32, 32)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    fields = one.flatten(0, 2).flatten(1)
    assert all(not torch.allclose(a, b) for a, b in itertools.pairwise(fields))


def test_of_several_chains_the_mean_image_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    method, images = model(chains=2), tiny.textures(2, 16)
    restored = [2 * images - 1 + by for by in (0.5, -0.1)]
    left = iter(restored)
    monkeypatch.setattr(method, "restored", lambda images, distance, draws: next(left))
    maps = method.predict(Inputs(images)).maps
    torch.testing.assert_close(maps, torch.full((2, 16, 16), 0.2**2))


def test_the_weights_kept_are_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one step they have moved by a tenth of what AdamW moves a weight at first, its rate."""
    method = model(batch_size=12)
    before = [one.clone() for one in method.denoiser.parameters()]
    method.fit(tiny.TensorTrainSet(tiny.textures(12, 32)), Run())
    moved = torch.stack(
        [(a - b).abs().max() for a, b in zip(before, method.denoiser.parameters(), strict=True)]
    )
    assert moved.max().item() == pytest.approx(0.1 * 2e-3, rel=1e-2)
    assert not any(one.requires_grad for one in method.denoiser.parameters())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"betas": "square"}, "linear, cosine; got 'square'"),
        ({"distance": 41}, "got 41, 40 and 50"),
        ({"chains": 0}, "from 1; got 0"),
        ({"trained_steps": 60}, "got 6, 60 and 50"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        model(**changed)


def test_sizes_that_do_not_come_back_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of it; got 64x66"):
        model().fit(tiny.TensorTrainSet(torch.zeros(2, 3, 64, 66)), Run())
