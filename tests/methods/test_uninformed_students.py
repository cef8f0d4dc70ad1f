"""Uninformed Students against others' code of it, and what its losses and scores mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.uninformed_students import (
    Scale,
    UninformedStudents,
    moments,
    patch_network,
    redundancy,
)
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.selection import Images
from tests import tiny
from tests.written_down import features, fill, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "uninformed_students.npz"


def model(**changed: Any) -> UninformedStudents:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "patches": [17],
        "students": 2,
        "width": 4,
        "dimensions": 6,
        "pictures": None,
        "pool": 3,
        "own": 0.5,
        "zoom": (2.0, 4.0),
        "grey": 0.1,
        "compactness": 1.0,
        "chunk": 4,
        "teacher_steps": 6,
        "teacher_batch": 5,
        "teacher_optimizer": partial(torch.optim.Adam, lr=2e-3),
        "validation": 0.25,
        "epochs": 1,
        "batch_size": 4,
        "optimizer": partial(torch.optim.Adam, lr=2e-3),
    }
    backbone = Backbone("test_resnet.r160_in1k", [3], "random")
    return UninformedStudents(backbone, **(settings | changed))


@pytest.mark.parametrize("side", [17, 33, 65])
def test_dense_descriptors_agree_with_others_code(side: int) -> None:
    """Up to its ReLU behind the last convolution, on normalised images, the border included."""
    reference = np.load(FIXTURE)
    scale = Scale(side, 2, 128, 128).double()
    fill(scale.teacher, 1000)
    with torch.no_grad():
        found = scale.described(scale.teacher, (pixels(1, 32, 1) - 0.5) / 0.5)
    found = F.leaky_relu(found, 5e-3)[:, ::9, ::5, ::3]
    np.testing.assert_allclose(found, reference[f"dense_{side}"], rtol=1e-6, atol=1e-12)


def test_error_and_variance_agree_with_others_code(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.load(FIXTURE)
    *students, teacher = features([(6, 5, 4)] * 4, 2, 7)
    scale = Scale(17, 3, 4, 6).double()
    answers = dict(zip([*scale.students, scale.teacher], [*students, teacher], strict=True))
    monkeypatch.setattr(scale, "described", lambda network, _: answers[network])
    error, variance = scale.judged(torch.empty(0)).unbind(1)
    np.testing.assert_allclose(error, reference["error"], rtol=1e-9)
    np.testing.assert_allclose(variance, reference["variance"], rtol=1e-9)
    loss = (students[0] - teacher).square().sum(1).mean()
    np.testing.assert_allclose(loss, reference["loss"], rtol=1e-9)
    mean, std = moments(teacher.split(1))
    np.testing.assert_allclose(mean, reference["mean"], rtol=1e-9)
    np.testing.assert_allclose(std, reference["std"], rtol=1e-9)


@pytest.mark.parametrize("side", [17, 33, 65])
def test_dense_is_every_patch_alone(side: int) -> None:
    torch.manual_seed(0)
    scale = Scale(side, 2, 4, 6).double()
    images = torch.rand(1, 3, 40, 36, dtype=torch.float64)
    with torch.no_grad():
        found, half = scale.described(scale.teacher, images), side // 2
        assert found.shape == (1, 6, 40, 36)
        padded = F.pad(images, [half] * 4)
        for row, column in ((0, 0), (39, 35), (20, 11), (7, 30)):
            patch = padded[:, :, row : row + side, column : column + side]
            wanted = scale.teacher(patch)
            assert wanted.shape == (1, 6, 1, 1)
            torch.testing.assert_close(found[:, :, row, column], wanted[:, :, 0, 0])


def test_students_who_agree_have_no_variance() -> None:
    scale = Scale(17, 3, 4, 6)
    for student in scale.students:
        student.load_state_dict(scale.students[0].state_dict())
    with torch.no_grad():
        error, variance = scale.judged(torch.rand(1, 3, 20, 20)).unbind(1)
    assert variance.max() < 1e-10
    assert error.min() > 0
    scale.students[0].load_state_dict(scale.teacher.state_dict())
    with torch.no_grad():
        assert scale.judged(torch.rand(1, 3, 20, 20))[:, 1].max() > 1e-6


def test_correlations_of_dimensions() -> None:
    """Against numpy; of white noise they vanish with the number of samples, of a repeated dimension not."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 6, generator=generator, dtype=torch.float64)
    mixed = noise @ torch.randn(6, 6, generator=generator, dtype=torch.float64)
    correlation = np.corrcoef(mixed.numpy(), rowvar=False)
    wanted = (correlation**2).sum() - 6
    assert float(redundancy(mixed)) == pytest.approx(wanted, rel=1e-9)
    assert float(redundancy(noise)) < 0.02
    assert float(redundancy(torch.cat([noise, -noise[:, :1]], 1))) == pytest.approx(2, abs=0.02)
    assert float(redundancy(torch.ones(5, 3))) == 0  # no dimension varies


def test_a_patch_shows_its_share_of_the_image() -> None:
    """A ramp: the patch's range is what the zoom says of its own; a grey one has no colour."""
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64) * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    seen = Images((ramp[None] * 255).round().to(torch.uint8), torch.device("cpu"))
    pictures, generator = torch.full((2, 3, 64, 64), 0.3), torch.Generator().manual_seed(0)
    method = model(own=1.0, zoom=(4.0, 4.0), grey=0.0)
    for _ in range(5):
        patch = method.patch(seen, pictures, 17, generator)
        assert patch.shape == (3, 17, 17)
        assert float(patch[0].max() - patch[0].min()) == pytest.approx(0.25, abs=0.03)
        torch.testing.assert_close(patch[1], patch[0] / 2, rtol=0, atol=0.01)
    method.grey = 1.0
    patch = method.patch(seen, pictures, 17, generator)
    assert torch.equal(patch[0], patch[2])
    method.own = 0.0
    torch.testing.assert_close(method.patch(seen, pictures, 33, generator), torch.full((3, 33, 33), 0.3))


def test_targets_are_standard_and_students_learn_them() -> None:
    method, notes, run = model(epochs=30), {}, Run()  # type: ignore[var-annotated]
    run.note = notes.update  # type: ignore[method-assign, assignment]
    images = tiny.textures(12)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    losses: list[float] = []
    run.loss = lambda value: losses.append(value.item()) or value  # type: ignore[method-assign, func-returns-value]
    method.train().fit(tiny.TensorTrainSet(images), run)
    assert notes == {"pictures": "procedural", "own_patches": 0.5}
    told = losses[6:]  # behind the distillation's steps
    assert np.mean(told[-6:]) < 0.7 * np.mean(told[:6])
    scale = method.each()[0]
    assert not torch.equal(scale.teacher[0].weight, before["scales.0.teacher.0.weight"])
    targets = scale.target(method.normalised(images))
    torch.testing.assert_close(targets.mean((0, 2, 3)), torch.zeros(6), rtol=0, atol=0.1)
    torch.testing.assert_close(targets.std((0, 2, 3)), torch.ones(6), rtol=0, atol=0.1)


def test_the_map_is_the_mean_of_scores_that_are_usual_around_0() -> None:
    method = model(patches=[17, 33])
    method.train().fit(tiny.TensorTrainSet(tiny.textures(8)), Run())
    images = tiny.textures(8)
    with torch.no_grad():
        maps = method.eval().predict(Inputs(images)).maps
        parts = [scale(method.normalised(images)) for scale in method.each()]
    assert maps is not None
    torch.testing.assert_close(maps, (parts[0] + parts[1]) / 2)
    assert abs(float(maps.mean())) < 0.5


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="patches are 17, 33, 65 pixels wide; got 16"):
        patch_network(16, 4, 6)
    with pytest.raises(UsageError, match="take 2 or more; got 1"):
        model(students=1)
    with pytest.raises(
        UsageError, match=r"own is a share, zoom two rising numbers from 1; got 2 and \[4, 2\]"
    ):
        model(own=2, zoom=(4, 2))


def test_moments_are_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(5, 3, 4, 6, generator=generator) + torch.tensor([0.0, 10.0, -3.0])[:, None, None]
    mean, std = moments(iter(maps.split(2)))
    rows: Tensor = maps.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(mean, rows.mean(1))
    torch.testing.assert_close(std, rows.std(1, correction=0))
