"""What is drawn together, against brute force over all pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ad_bench.parts.siamese import head, unlikeness


def test_all_pairs_by_brute_force() -> None:
    torch.manual_seed(0)
    predicted, projected = torch.randn(2, 5, 6, 3, 4)
    pairs = [
        -F.cosine_similarity(predicted[i], projected[j], dim=0).mean()
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    torch.testing.assert_close(unlikeness(predicted, projected), torch.stack(pairs).mean())


def test_symmetric_in_the_images() -> None:
    torch.manual_seed(1)
    predicted, projected = torch.randn(2, 2, 6, 3, 3)
    torch.testing.assert_close(
        unlikeness(predicted, projected), unlikeness(predicted.flip(0), projected.flip(0))
    )


def test_equal_images_are_like_each_other_and_one_alone_is_nothing() -> None:
    one = torch.randn(1, 6, 3, 3)
    assert unlikeness(one.expand(4, -1, -1, -1), 7 * one.expand(4, -1, -1, -1)).item() == pytest.approx(-1)
    assert unlikeness(one, one).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_projections() -> None:
    predicted, projected = (torch.randn(3, 4, 2, 2, requires_grad=True) for _ in range(2))
    unlikeness(predicted, projected).backward()
    assert projected.grad is None
    assert predicted.grad is not None
    assert predicted.grad.abs().max() > 0


def test_a_head_sees_one_position() -> None:
    torch.manual_seed(0)
    layers = head(4, 3).eval()
    assert sum(isinstance(one, torch.nn.Conv2d) for one in layers) == 3
    assert isinstance(layers[-1], torch.nn.Conv2d)
    maps = torch.randn(1, 4, 3, 3)
    changed = maps.clone()
    changed[..., 1, 1] += 1
    moved = (layers(maps) != layers(changed)).any(1)[0]
    assert moved.nonzero().tolist() == [[1, 1]]
