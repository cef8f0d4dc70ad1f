"""Losses by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ad_bench.parts.losses import focal


def test_focal_by_hand():
    probability = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])  # (1, 2, 1, 2)
    target = torch.tensor([[[0, 0]]])
    expected = (-(0.1**2) * math.log(0.9) - 0.6**2 * math.log(0.4)) / 2
    assert focal(probability, target).item() == pytest.approx(expected, rel=1e-5)
    plain = (-math.log(0.9) - math.log(0.4)) / 2
    assert focal(probability, target, gamma=0.0).item() == pytest.approx(plain, rel=1e-5)


def test_focal_is_finite_where_a_class_has_no_chance():
    probability = torch.tensor([[[[0.0]], [[1.0]]]], requires_grad=True)
    value = focal(probability, torch.tensor([[[0]]]))
    assert value.item() == pytest.approx(-((1 - 1e-5) ** 2) * math.log(1e-5), rel=1e-4)
    assert focal(probability, torch.tensor([[[1]]])).item() == pytest.approx(0.0, abs=1e-9)
