from __future__ import annotations

import pytest
import torch

from ad_bench.parts.deviation import deviation_loss, top_mean

PRIOR = torch.tensor([-1.0, 0.0, 1.0])  # mean 0, deviation 1


def test_normal_images_at_the_mean_cost_nothing() -> None:
    assert deviation_loss(torch.zeros(3), torch.zeros(3), PRIOR, 5.0) == 0


def test_by_hand() -> None:
    scores, labels = torch.tensor([2.0, -2.0, 1.0, 9.0]), torch.tensor([0, 0, 1, 1])
    assert deviation_loss(scores, labels, PRIOR, 5.0) == pytest.approx((2 + 2 + 4 + 0) / 4)


def test_in_deviations_of_the_prior() -> None:
    scores, labels = torch.tensor([4.0, 4.0]), torch.tensor([0, 1])
    assert deviation_loss(scores, labels, 2 * PRIOR + 1, 5.0) == pytest.approx((1.5 + 3.5) / 2)


def test_beyond_the_margin_nothing_pulls() -> None:
    scores = torch.tensor([4.9, 5.1], requires_grad=True)
    deviation_loss(scores, torch.ones(2), PRIOR, 5.0).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [-0.5, 0.0]


def test_top_mean() -> None:
    values = torch.tensor([[1.0, 5.0, 3.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    assert top_mean(values, 0.4).tolist() == [4.5, 4.5]
    assert top_mean(values, 0.1).tolist() == [5.0, 9.0]
