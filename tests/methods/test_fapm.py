"""FAPM: scoring against the authors' code, memories against what their making says."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Prediction, Run
from ad_bench.errors import UsageError
from ad_bench.methods.fapm import FAPM, Memory, cut
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.coreset import greedy_coreset
from tests import tiny
from tests.written_down import features

FIXTURE = Path(__file__).parent / "fixtures" / "fapm.npz"


class Levels(nn.Module):
    """Stands for a backbone: an image holds the number of its features."""

    layers = (2, 3)

    def __init__(self, levels: list[Tensor]) -> None:
        super().__init__()
        self.levels = [level.float() for level in levels]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


def numbered(count: int, side: int) -> Tensor:
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def fapm(
    backbone: nn.Module, cells: int = 4, ratio: float = 0.1, harder: float = 2.0, compat: bool = True
) -> FAPM:
    return FAPM(cast(Backbone, backbone), cells, ratio, harder, 4, 4.0, compat)


def as_the_authors(compat: bool) -> Prediction:
    """Features and memories of the fixture's script."""
    reference = np.load(FIXTURE)
    channels, (images, near, far, seed) = reference["channels"].tolist(), reference["images"].tolist()
    shapes = [(channels[0], 28, 28), (channels[1], 14, 14)]
    model = fapm(Levels(features(shapes, images, seed)), compat=compat)
    for bank, width, every in zip(model.banks, channels, (3, 4), strict=True):
        hard = torch.arange(49) % every == 0
        easy, larger = (features([(n, width)], 49, seed + n + width)[0].float() for n in (near, far))
        cast(Memory, bank).keep(easy[~hard], larger[hard], hard)
    return model.predict(Inputs(numbered(images, 224)))


def test_scoring_agrees_with_the_authors_code() -> None:
    reference, prediction = np.load(FIXTURE), as_the_authors(compat=True)
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::9, ::7].numpy(), reference["maps"], rtol=1e-4)
    np.testing.assert_allclose(prediction.scores.numpy(), reference["scores"], rtol=1e-4)
    assert (as_the_authors(compat=False).scores - prediction.scores).abs().max() > 1e-3


def test_a_coarse_cell_lies_over_a_square_of_fine_cells() -> None:
    coarse = torch.arange(4.0).view(1, 1, 1, 4, 1)
    over = fapm(Levels([]), compat=False)._spread(coarse)[0, 0, 0, :, 0].view(4, 4)
    assert over.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    released = fapm(Levels([]), compat=True)._spread(coarse)[0, 0, 0, :, 0].view(4, 4)
    assert released.tolist() == [[0] * 4, [1] * 4, [2] * 4, [3] * 4]


def test_regions_hold_each_cell_once_and_square_by_square() -> None:
    cells = torch.arange(28 * 20.0).view(1, 1, 28, 20)
    regions = cut(cells, 4)[0, ..., 0]
    assert regions.shape == (7, 5, 16)
    assert sorted(regions.flatten().tolist()) == list(range(28 * 20))
    assert regions[1, 2].view(4, 4).tolist() == cells[0, 0, 4:8, 8:12].tolist()


def test_one_region_with_all_features_is_an_exhaustive_search() -> None:
    levels = features([(5, 8, 8), (6, 4, 4)], 6, 0)
    model = fapm(Levels(levels), cells=8, ratio=1.0, harder=1.0, compat=False)
    model.sigma = 0.0
    model.fit(tiny.TensorTrainSet(numbered(4, 8)), Run())
    prediction = model.predict(Inputs(numbered(6, 8)[4:]))
    wanted = torch.zeros(2, 8, 8)
    for level in levels:
        rows = F.avg_pool2d(level.float(), 3, 1, 1).permute(0, 2, 3, 1)
        distance = torch.cdist(rows[4:].flatten(0, 2), rows[:4].flatten(0, 2)).amin(1)
        times = 8 // rows.shape[1]
        wanted += distance.view(2, 8 // times, -1).repeat_interleave(times, 1).repeat_interleave(times, 2)
    assert prediction.maps is not None
    torch.testing.assert_close(prediction.maps, wanted, rtol=1e-4, atol=1e-4)


def test_hard_regions_get_larger_coresets() -> None:
    """One region of four varies much more than the others."""
    level = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    level[:, :, 4:, :4] *= 20
    model = fapm(Levels([level, level[:, :, ::2, ::2]]))
    model.fit(tiny.TensorTrainSet(numbered(10, 8)), Run())
    fine = cast(Memory, model.banks[0])
    assert fine.hard.points.tolist() == [False, False, True, False]
    assert fine.easy_points.points.shape == (3, 16, 3)
    assert fine.hard_points.points.shape == (1, 32, 3)
    group = cut(F.avg_pool2d(level, 3, 1, 1), 4)[:, 0, 0].flatten(0, 1)
    kept = fine.easy_points.points[0]
    start = int((group - kept[0]).square().sum(1).argmin())
    torch.testing.assert_close(kept, group[greedy_coreset(group, 16, start)], rtol=0, atol=0)


def test_image_score_is_the_worst_cell_weighed() -> None:
    model = fapm(Levels(features([(5, 8, 8), (6, 4, 4)], 6, 1)))
    model.fit(tiny.TensorTrainSet(numbered(5, 8)), Run())
    bank_f, bank_c = (cast(Memory, bank) for bank in model.banks)
    fine, coarse = model.embed(numbered(6, 8)[5:])
    total = bank_f.distances(fine, 4)[0] + bank_c.distances(coarse, 4)[0].repeat_interleave(4, 2)
    worst = total.flatten(0, 2)[total[..., 0].argmax()].double()
    wanted = (1 - worst.exp().max() / worst.exp().sum()) * worst[0]
    found = model.predict(Inputs(numbered(6, 8)[5:])).scores
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_far_features_score_finitely() -> None:
    levels = features([(5, 8, 8), (6, 4, 4)], 6, 2)
    for level in levels:
        level[5] *= 1e4
    model = fapm(Levels(levels))
    model.fit(tiny.TensorTrainSet(numbered(5, 8)), Run())
    assert model.predict(Inputs(numbered(6, 8)[5:])).scores.isfinite().all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match="8 x 8 cells cannot be cut into squares of 3 x 3"):
        cut(torch.zeros(1, 1, 8, 8), 3)
    with pytest.raises(UsageError, match=r"in \(0, 1\], harder at least 1; got 0"):
        fapm(Levels([]), ratio=0)
    with pytest.raises(UsageError, match="neighbors at least 2; got 0 and 4"):
        fapm(Levels([]), cells=0)
