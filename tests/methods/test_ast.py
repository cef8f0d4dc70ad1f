"""AST against the authors' code, and what its paper says of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.ast import AST
from ad_bench.parts.backbone import Backbone
from tests import tiny
from tests.written_down import features, fill

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "ast.npz")
ADAM = partial(torch.optim.Adam, lr=2e-4, weight_decay=1e-5)
TRAIN, TEST = (features([(7, 6, 6)], 3, seed) for seed in (1, 2))


class Given(nn.Module):
    """Stands for a backbone: the same level whatever the images."""

    layers, channels = (3,), (7,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [TEST[0][: len(images)]]


def model(backbone: nn.Module | None = None, **changed: object) -> AST:
    settings: dict[str, object] = {
        "kernels": [3, 3, 5],
        "teacher_hidden": 5,
        "clamp": 1.9,
        "positions": 8,
        "student_hidden": 6,
        "blocks": 2,
        "score": "mean",
        "teacher_epochs": 1,
        "student_epochs": 1,
        "batch_size": 4,
        **changed,
    }
    torch.manual_seed(0)
    backbone = backbone or Backbone("test_resnet.r160_in1k", [3], "random")
    return AST(backbone, optimizer=ADAM, **settings)  # type: ignore[arg-type]


def in_their_order(method: AST) -> nn.ModuleList:
    """The student's layers as the authors hold them: the last convolution before the blocks."""
    first, _, *blocks, last = method.student
    return nn.ModuleList([first, last, *blocks])


@pytest.fixture
def written() -> AST:
    """With the weights that the authors' code was given."""
    method = model(Given()).double()
    fill(method.teacher, 1000)
    fill(in_their_order(method), 2000)
    return method


def check_gradients(module: nn.Module, name: str) -> None:
    gradients = [one.grad for one in module.parameters() if one.grad is not None]
    norms = REFERENCE[f"{name}_norms"]
    least = 1e-10 * norms.max()  # biases before a batch norm have none but rounding
    np.testing.assert_allclose([float(one.norm()) for one in gradients], norms, rtol=1e-6, atol=least)
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients]
    np.testing.assert_allclose(picked, REFERENCE[f"{name}_gradient"], rtol=1e-6, atol=least)


def test_the_teacher_agrees_with_the_authors_code(written: AST) -> None:
    (z,), (log_det,) = written.teacher(TRAIN, written.told(TRAIN[0]))
    np.testing.assert_allclose(z.detach(), REFERENCE["z"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(log_det.detach(), REFERENCE["log_det"], rtol=1e-6, atol=1e-9)
    loss = written.teacher_loss(TRAIN)
    np.testing.assert_allclose(loss.item(), REFERENCE["teacher_loss"], rtol=1e-7)
    loss.backward()
    check_gradients(written.teacher, "teacher")


def test_the_student_agrees_with_the_authors_code(written: AST) -> None:
    loss = written.train().student_loss(TRAIN)
    np.testing.assert_allclose(loss.item(), REFERENCE["student_loss"], rtol=1e-7)
    loss.backward()
    check_gradients(in_their_order(written), "student")
    assert all(one.grad is None for one in written.teacher.parameters()), (
        "the student's loss moves the teacher"
    )


def test_scores_and_maps_agree_with_the_authors_code(written: AST) -> None:
    written.train().student_loss(TRAIN)  # as there, a step's batch has moved the batch norms
    written.eval()
    images = torch.zeros(3, 3, 48, 48, dtype=torch.float64)
    prediction = written.predict(Inputs(images))
    np.testing.assert_allclose(prediction.scores.detach(), REFERENCE["scores"], rtol=1e-6)
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps.detach(), REFERENCE["maps"], rtol=1e-6, atol=1e-9)
    written.score = "max"
    np.testing.assert_allclose(
        written.predict(Inputs(images)).scores.detach(), REFERENCE["largest"], rtol=1e-6
    )


def test_a_fresh_teacher_only_shuffles() -> None:
    method = model()
    maps = torch.rand(2, 192, 3, 3)
    (z,), (log_det,) = method.teacher([maps], method.told(maps))
    torch.testing.assert_close(z.sort(1).values, maps.sort(1).values)
    assert torch.equal(log_det, torch.zeros(2, 3, 3))


def test_the_teacher_is_trained_first_then_the_student() -> None:
    train = tiny.TensorTrainSet(tiny.textures(8))
    losses: dict[str, list[float]] = {"teacher": [], "student": []}
    method = model(teacher_epochs=6, student_epochs=8, student_hidden=32)
    states = []
    for name in losses:
        loss = getattr(method, f"{name}_loss")

        def told(batch: list[Tensor], loss: object = loss, name: str = name) -> Tensor:
            value = loss(batch)  # type: ignore[operator]
            losses[name].append(float(value.detach()))
            if name == "student":
                states.append({key: one.clone() for key, one in method.teacher.state_dict().items()})
            return value

        setattr(method, f"{name}_loss", told)
    method.fit(train, Run())
    assert len(losses["teacher"]) == 2 * 6
    assert len(losses["student"]) == 2 * 8
    assert all(torch.equal(one, states[0][key]) for key, one in method.teacher.state_dict().items())
    assert losses["teacher"][-1] < losses["teacher"][0]
    assert losses["student"][-1] < losses["student"][0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kernels": [2]}, r"odd .* got \[2\]"),
        ({"score": "sum"}, "mean, max; got 'sum'"),
        ({"positions": 6}, "multiple of 4"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        model(**changed)
