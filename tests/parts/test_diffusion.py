"""The diffusion chain by its closed forms, against single steps, and against AnoDDPM's coefficients."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.diffusion import BETAS, Diffusion, at, cosine_betas, linear_betas

REFERENCE = np.load(Path(__file__).parents[1] / "methods" / "fixtures" / "anoddpm.npz")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "steps"), [("linear", 1000), ("cosine", 50)])
def test_agrees_with_the_authors_coefficients(name: str, steps: int) -> None:
    chain = Diffusion(BETAS[name](steps))
    ours = [chain.kept, chain.posterior_variance, chain.of_clean, chain.of_noised, chain.step_variance]
    every = slice(None, None, steps // 50)
    np.testing.assert_allclose(torch.stack(ours)[:, every], REFERENCE[name], rtol=1e-12, atol=0)


def test_the_image_is_gone_in_the_end() -> None:
    betas = linear_betas(1000)
    assert betas[0].item() == pytest.approx(1e-4)
    assert betas[-1].item() == pytest.approx(0.02)
    for given in (betas, cosine_betas(1000)):
        left = torch.tensor([math.prod((1 - given[: time + 1]).tolist()) for time in (0, 499, 999)])
        torch.testing.assert_close(Diffusion(given).kept[[0, 499, 999]], left.double())
        assert left[-1] < 5e-5
    assert Diffusion(linear_betas(100)).kept[-1] < 5e-5  # fewer steps, as much noise


def test_many_steps_are_as_one() -> None:
    """The mean and the variance of x_t by the chain of single steps, exactly."""
    betas, mean, variance = linear_betas(40), 1.0, 0.0
    chain = Diffusion(betas)
    for time, beta in enumerate(betas.tolist()):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        assert chain.noised(one, zero, time).item() == pytest.approx(mean, rel=1e-12)
        assert chain.noised(zero, one, time).item() ** 2 == pytest.approx(variance, rel=1e-12)


def test_perfect_noise_gives_the_image_back() -> None:
    chain, clean, noise = Diffusion(linear_betas(1000)), normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    times = torch.tensor([0, 250, 999])
    torch.testing.assert_close(chain.cleaned(chain.noised(clean, noise, times), noise, times), clean)


def test_the_posterior_is_bayes() -> None:
    """Of x_t-1 given x_t and x_0: the product of two Gaussians."""
    betas, time = linear_betas(30), 12
    chain, beta, before = Diffusion(betas), betas[time].item(), Diffusion(betas).kept[time - 1].item()
    clean, noised = normal(5), normal(5, seed=1)
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = (math.sqrt(1 - beta) / beta * noised + math.sqrt(before) / (1 - before) * clean) / precision
    torch.testing.assert_close(chain.posterior_mean(clean, noised, time), mean)
    assert chain.posterior_variance[time].item() == pytest.approx(1 / precision)
    assert chain.posterior_variance[0] == 0
    torch.testing.assert_close(chain.posterior_mean(clean, noised, 0), clean)


def test_a_step_back_adds_noise_of_its_variance_but_the_last() -> None:
    chain = Diffusion(linear_betas(30))
    noised, predicted, fresh = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    still = chain.back(noised, predicted, None, 9)
    moved = chain.back(noised, predicted, fresh, 9) - still
    torch.testing.assert_close(moved, linear_betas(30)[9].sqrt() * fresh)
    clean = 0.3 * normal(2, 3, 4, 4, seed=3).clamp(-3, 3)
    last = chain.back(chain.noised(clean, predicted, 0), predicted, None, 0)
    torch.testing.assert_close(last, clean)
    far = chain.back(chain.noised(100 * clean, predicted, 0), predicted, None, 0)
    assert far.abs().max() <= 1 + 1e-12


def test_times_of_a_batch() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert at(values, torch.tensor([2, 0]), torch.zeros(2, 3, 4, 4)).shape == (2, 1, 1, 1)
    assert at(values, 1, torch.zeros(2, 3)).dtype == torch.float32
    chain, clean, noise = Diffusion(linear_betas(30)), normal(2, 3), normal(2, 3, seed=1)
    both = chain.noised(clean, noise, torch.tensor([3, 7]))
    torch.testing.assert_close(both[1:], chain.noised(clean[1:], noise[1:], 7))


def test_betas_that_are_no_variances_are_refused() -> None:
    with pytest.raises(UsageError, match="take more steps"):
        Diffusion(linear_betas(10) * 2)
