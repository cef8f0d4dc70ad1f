"""How far a score lies from those of normal images, in their deviations (Pang et al., arXiv:2108.00462)."""

from __future__ import annotations

import torch
from torch import Tensor


def deviation_loss(scores: Tensor, labels: Tensor, reference: Tensor, margin: float) -> Tensor:
    """Scores (B,), labels (B,) 1 for anomalous, `reference` scores of a prior -> the mean loss (Eq. 4 to 6).

    A normal image costs its distance from the reference's mean, an anomalous one what it lacks to `margin`
    above it, both in standard deviations of the reference.
    """
    deviation = (scores - reference.mean()) / reference.std()
    lacking = (margin - deviation).clamp(min=0)
    return torch.where(labels == 1, lacking, deviation.abs()).mean()


def top_mean(values: Tensor, share: float) -> Tensor:
    """(B, N) -> (B,): the mean of the highest `share` of each row, at least of one."""
    count = max(int(values.shape[1] * share), 1)
    return values.topk(count, dim=1).values.mean(1)
