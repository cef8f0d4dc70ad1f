"""IKD against a training and a test by the authors' code; the margin, and what the context loss sees."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Batch, Inputs
from ad_bench.errors import UsageError
from ad_bench.methods.ikd import IKD
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "ikd.npz"
ADAMW = partial(torch.optim.AdamW, lr=5e-5, weight_decay=0.01)


def model(beta: float = 2.0, gamma: float = 1.0, memory: float = 0.01) -> IKD:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    return IKD(backbone, True, 4, [1.0, 2.0], beta, gamma, memory, 1, 2, ADAMW)


def test_agrees_with_the_authors_code() -> None:
    """Losses and margins of three steps, the first gradient, and maps after them."""
    reference = np.load(FIXTURE)
    backbone = Backbone("hrnet_w18.ms_in1k", ["branches.1", "branches.2"], "random")
    method = IKD(backbone, True, 4, [1.0, 2.0], 2.0, 1.0, 0.01, 1, 2, ADAMW).double().train()
    for network, seed in ((method.backbone, 1000), (method.student, 2000)):
        fill(network.network, seed)
        normalise_in_float64(network)
    steps = ADAMW(method.student.parameters())
    for step, seed in enumerate((1, 2, 3)):
        steps.zero_grad()
        loss = method.loss(Batch(pixels(2, 64, seed)))
        loss.backward()
        assert loss.item() == pytest.approx(reference["losses"][step, 2], rel=1e-6)
        assert float(method.margin) == pytest.approx(reference["margins"][step], rel=1e-6)
        if step == 0:
            found = [one.grad for one in method.student.parameters() if one.grad is not None]
            gradient = [float(one.flatten()[one.numel() // 3]) for one in found]
            np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-6, atol=1e-12)
        steps.step()
    with torch.no_grad():
        maps = method.eval().predict(Inputs(pixels(2, 64, 9))).maps
    assert maps is not None
    np.testing.assert_allclose(maps[:, ::5, ::3], reference["maps"], rtol=1e-5)


def given(method: IKD, pairs: list[tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(method, "levels", lambda _: pairs)
    return float(method.loss(Batch(torch.empty(0))))


def features(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Two levels of unit vectors (count, 6, 5, 4), for teacher and student."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, 2, count, 6, 5, 4, generator=generator)
    return [(one, other) for one, other in torch.nn.functional.normalize(drawn, dim=3)]


def test_without_a_margin_every_pixel_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is the mean distance of all, as in STFPM, and the Gram matrices of all."""
    pairs = features(2, 1)
    plain = [float((known - learnt).square().sum(1).mean()) for known, learnt in pairs]
    assert given(model(beta=-100, gamma=0), pairs, monkeypatch) == pytest.approx(
        (plain[0] + 2 * plain[1]) / 3, rel=1e-5
    )
    grams = []
    for known, learnt in pairs:
        rows = [one.permute(0, 2, 3, 1).reshape(-1, 6) for one in (known, learnt)]
        total = 0.0
        for i in range(40):  # a slow loop
            for j in range(40):
                total += float(rows[0][i] @ rows[0][j] - rows[1][i] @ rows[1][j]) ** 2
        grams.append(total / 1600)
    wanted = (
        sum(weight * (one + 0.5 * two) for weight, one, two in zip((1, 2), plain, grams, strict=True)) / 3
    )
    assert given(model(beta=-100, gamma=0.5), pairs, monkeypatch) == pytest.approx(wanted, rel=1e-4)


def test_the_context_is_blind_to_a_common_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the channels mean is not compared, only how alike pixels are: the loss of gamma alone is 0."""
    (known, _), _ = features(2, 2)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))[0]
    turned = [(known, torch.einsum("cd,bdhw->bchw", turn, known))] * 2
    with_context, without = (given(model(-100, gamma), turned, monkeypatch) for gamma in (100.0, 0.0))
    assert without > 0.5
    assert with_context == pytest.approx(without, abs=1e-3)


def test_the_margin_is_shared_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second level it starts from the first's, of a step from the one before."""
    method, pairs = model(beta=1.0, memory=0.25), features(2, 4)
    distances = [(known - learnt).square().sum(1) for known, learnt in pairs]
    fresh = [float(one.mean() + one.std()) for one in distances]
    margin = 0.0
    for _ in range(2):
        given(method, pairs, monkeypatch)
        for one in fresh:
            margin = 0.25 * margin + 0.75 * one
        assert float(method.margin) == pytest.approx(margin, rel=1e-5)
    state = method.state_dict()
    assert float(state["margin"]) == pytest.approx(margin, rel=1e-5)


def test_one_pixel_is_always_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = features(1, 5)
    worst = [float((known - learnt).square().sum(1).max()) for known, learnt in pairs]
    assert given(model(beta=100, gamma=1), pairs, monkeypatch) == pytest.approx(
        (worst[0] + 2 * worst[1]) / 3, rel=1e-4
    )


def test_a_student_that_equals_its_teacher_finds_nothing() -> None:
    method = model().eval()
    method.student.network.load_state_dict(method.backbone.network.state_dict())
    with torch.no_grad():
        prediction = method.predict(Inputs(tiny.textures(2)))
    assert prediction.scores.max() < 1e-9
    assert prediction.maps is not None
    assert prediction.maps.shape == (2, 64, 64)


def test_levels_and_weights_go_together() -> None:
    backbone = Backbone("test_resnet.r160_in1k", [2, 3], "random")
    with pytest.raises(UsageError, match=r"weights are 2, one for each of the layers \[2, 3\]; got \[1.0\]"):
        IKD(backbone, True, 4, [1.0], 2.0, 1.0, 0.01, 1, 2, ADAMW)
