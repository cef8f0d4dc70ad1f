"""PNI: counts, neighbourhoods, network and scores as the authors' code; without limits it is PatchCore."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.pni import PNI, around, lowest, occurrences, projected
from ad_bench.parts.maps import upsample_and_blur
from ad_bench.parts.neighbors import nearest
from tests import tiny
from tests.written_down import features, fill

FIXTURE = Path(__file__).parent / "fixtures" / "pni.npz"
SETTINGS: dict[str, Any] = {
    "backbone": nn.Identity(),
    "reach": 4,
    "patch_size": 5,
    "pretrain_dim": 6,
    "target_dim": 6,
    "coreset_ratio": 0.1,
    "distribution": 8,
    "projection_eps": 0.9,
    "depth": 3,
    "width": 2048,
    "dropout": 0.5,
    "validation": 0.1,
    "epochs": 2,
    "batch_size": 64,
    "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "schedule": lambda steps: torch.optim.lr_scheduler.StepLR(steps, step_size=5),
    "temperature": 2.0,
    "likely_neighbours": 2.5,
    "likely_position": 0.5,
    "gamma": 0.99,
    "top": None,
    "sigma": 8.0,
    "compat": True,
}


class Given(PNI):
    """An image holds the number of its features."""

    def __init__(self, table: Tensor, **settings: Any) -> None:
        super().__init__(**{**SETTINGS, "width": 16, **settings})
        self.table = table

    def embed(self, images: Tensor) -> Tensor:
        return self.table[images[:, 0, 0, 0].long()]


def numbered(count: int, side: int = 96) -> Tensor:
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def as_the_authors(**settings: Any) -> tuple[Given, dict[str, Any]]:
    """Features, memories and weights of the fixture's script."""
    reference = dict(np.load(FIXTURE))
    images, side, dim, memory, classes, seed = reference["sizes"].tolist()
    (table,) = features([(side, side, dim)], images, seed)
    method = Given(table.float(), **{"width": 2048, **settings})
    fill(method.network, seed)
    method.memory.points = features([(dim,)], memory, seed + 1)[0].float()
    method.classes.points = method.memory.points[:classes]
    method.owner.points = nearest(method.memory.points, method.classes.points)[1][:, 0]
    inner = method.inner(method.table)
    occurring = nearest(inner.flatten(0, 2), method.memory.points)[1].view(inner.shape[:3])
    share = occurrences(occurring, memory, 4)
    np.testing.assert_allclose(share.permute(1, 2, 0).numpy(), reference["histogram"], rtol=1e-6)
    method.usual.points = (share > 0.5 / memory).permute(1, 2, 0)
    return method.eval(), reference


def test_neighbourhoods_and_the_networks_answers_agree_with_the_authors_code() -> None:
    method, reference = as_the_authors()
    inner = method.inner(method.table)
    target = nearest(inner.flatten(0, 2), method.classes.points)[1][:, 0]
    assert target.tolist() == reference["target"].tolist()
    rows = method.neighbourhoods(method.table, torch.arange(len(target)))
    np.testing.assert_array_equal(rows[::37].numpy(), reference["neighbourhoods"])
    with torch.no_grad():
        logits = method.network(rows[::3]).numpy()
    np.testing.assert_allclose(logits, reference["logits"], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_scoring_agrees_with_the_authors_code() -> None:
    method, reference = as_the_authors()
    prediction = method.predict(Inputs(numbered(len(method.table))))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::5, ::7].numpy(), reference["maps"], rtol=1e-4)
    np.testing.assert_allclose(prediction.scores.numpy(), reference["scores"], rtol=1e-4)
    other, _ = as_the_authors(compat=False)
    intended = other.predict(Inputs(numbered(len(method.table)))).scores
    assert (intended - prediction.scores).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("compat", [True, False])
def test_where_everything_is_admitted_it_is_patchcore(compat: bool) -> None:
    method, _ = as_the_authors(compat=compat, likely_neighbours=-1.0)
    method.usual.points = torch.ones_like(method.usual.points)
    found = method.surprise(method.table[:1])
    rows = method.inner(method.table[:1]).flatten(0, 2)
    wanted = torch.cdist(rows.double(), method.memory.points.double()).amin(1).view_as(found)
    torch.testing.assert_close(found.double(), -math.log(0.99) + 0.99 * wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("compat", [True, False])
def test_admission_equals_loops(compat: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    method, _ = as_the_authors(compat=compat)
    distance, to_classes = torch.rand(9, 20, generator=generator), torch.rand(9, 8, generator=generator)
    likely = torch.rand(9, 8, generator=generator) > 0.7
    found = method.admitted(distance, to_classes, likely)
    owner = method.owner.points.tolist()
    for row in range(9):
        kept = [float(distance[row].max())]
        rising, classes = distance[row].sort().values, to_classes[row].argsort()
        for item in range(20):
            if compat and likely[row, classes[owner[item]]]:
                kept.append(float(rising[item]))
            if not compat and likely[row, owner[item]]:
                kept.append(float(distance[row, item]))
        assert found[row].item() == min(kept)


def test_the_farthest_is_always_admitted() -> None:
    distance = torch.tensor([[3.0, 1.0, 2.0]])
    assert lowest(distance, torch.zeros(1, 3, dtype=torch.bool)).item() == 3
    assert lowest(distance, torch.tensor([[True, False, True]])).item() == 2


def test_occurrences_equal_a_loop() -> None:
    index = torch.randint(5, (3, 6, 7), generator=torch.Generator().manual_seed(0))
    found = occurrences(index, 5, 2)
    for row in range(6):
        for column in range(7):
            near = index[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            wanted = torch.bincount(near.flatten(), minlength=5) / near.numel()
            torch.testing.assert_close(found[:, row, column], wanted)


def test_the_cell_that_is_left_out() -> None:
    intended, released = around(1, False).tolist(), around(1, True).tolist()
    assert [0, 0] not in intended
    assert [0, 1] in intended
    assert [0, 0] in released
    assert [0, 1] not in released
    assert len(intended) == len(released) == 8


def test_dimensions_of_the_projection_are_those_of_scikit_learn() -> None:
    from sklearn.random_projection import johnson_lindenstrauss_min_dim

    assert projected(5000, 0.9) == johnson_lindenstrauss_min_dim(5000, eps=0.9)


def test_a_feature_in_the_wrong_place_scores_higher_than_in_its_own() -> None:
    """Left halves hold one kind of feature, right halves another; an image with the halves swapped is new."""
    generator = torch.Generator().manual_seed(0)
    table = 0.05 * torch.rand(12, 16, 16, 6, generator=generator)
    table[:, :, :8, 0] += 4
    table[:, :, 8:, 1] += 4
    table[11] = table[11].flip(1)
    method = Given(table, coreset_ratio=0.02, likely_neighbours=0.5, reach=2, sigma=0.0)
    method.fit(tiny.TensorTrainSet(numbered(10, 128)), Run())
    with torch.no_grad():
        normal, swapped = method.eval().predict(Inputs(numbered(12, 128)[10:])).scores.tolist()
    assert swapped > normal + 1


def test_the_best_epoch_on_held_out_patches_is_kept() -> None:
    """With a rate that explodes after the first epoch, the first is kept."""
    notes: dict[str, object] = {}

    class Noted(Run):
        def note(self, **facts: object) -> None:
            notes.update(facts)

    def jump(steps: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(steps, lambda epoch: 1.0 if epoch == 0 else 1e5)

    table = torch.rand(6, 12, 12, 6, generator=torch.Generator().manual_seed(2))
    method = Given(table, schedule=jump, dropout=0.0, epochs=3)
    torch.manual_seed(0)
    method.fit(tiny.TensorTrainSet(numbered(6)), Noted())
    assert notes["chosen_epoch"] == 1
    assert notes["classes"] == 8


def test_an_image_may_score_as_its_highest_pixels() -> None:
    table = torch.rand(6, 12, 12, 6, generator=torch.Generator().manual_seed(3))
    method = Given(table, top=0.01)
    method.fit(tiny.TensorTrainSet(numbered(5)), Run())
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(numbered(6)[5:]))
        cells = torch.nn.functional.pad(method.surprise(table[5:])[None, None], [2] * 4, "replicate")[0]
    wanted = upsample_and_blur(cells, (96, 96), 8.0).flatten().sort(descending=True).values[:92].mean()
    assert prediction.scores.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match=r"shares in \(0, 1\]"):
        Given(torch.zeros(0), coreset_ratio=0.0)
    with pytest.raises(UsageError, match="batch_size 2"):
        Given(torch.zeros(0), batch_size=1)
    with pytest.raises(UsageError, match="lies within a grid of 4 x 9"):
        Given(torch.zeros(0)).inner(torch.zeros(1, 4, 9, 6))
