"""RD4AD against the authors' networks, loss and maps, and against what the paper says of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.rd4ad import RD4AD
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.reverse import OneClassEmbedding, ReverseDecoder
from tests import tiny
from tests.written_down import features, fill, normalise_in_float64, pixels

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "rd4ad.npz")
ADAM = partial(torch.optim.Adam, lr=0.005, betas=(0.5, 0.999))
BASIC = {"blocks": [2, 2, 2], "embedding_blocks": 2, "bottleneck": None}
TINY = {"blocks": [1, 1, 1], "embedding_blocks": 1, "bottleneck": None}


class Given(nn.Module):
    """Stands for a wide_resnet50_2: the same levels for every image."""

    name, layers, strides, channels = "given", (1, 2, 3), (4, 8, 16), (256, 512, 1024)

    def __init__(self, *levels: Tensor):
        super().__init__()
        self.levels = list(levels)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels


def rd4ad(backbone: nn.Module, epochs: int = 1, **shape: object) -> RD4AD:
    torch.manual_seed(0)
    return RD4AD(backbone, sigma=4.0, epochs=epochs, batch_size=16, optimizer=ADAM, **shape)  # type: ignore[arg-type]


def small(name: str = "test_resnet.r160_in1k", epochs: int = 1) -> RD4AD:
    return rd4ad(Backbone(name, [1, 2, 3], "random"), epochs, **TINY)


@pytest.mark.parametrize("case", ["basic", "wide"])
def test_agrees_with_the_authors_code(case: str) -> None:
    """Loss, gradient of every parameter, and maps, with the blocks of resnet18 and of wide_resnet50_2."""
    if case == "basic":
        method, images = rd4ad(Backbone("resnet18.tv_in1k", [1, 2, 3], "random"), **BASIC), pixels(2, 64, 1)
    else:
        levels = features([(256, 16, 16), (512, 8, 8), (1024, 4, 4)], 2, 1)
        method = rd4ad(Given(*levels), blocks=[1, 1, 1], embedding_blocks=1, bottleneck=0.5)
        images = torch.zeros(2, 3, 64, 64, dtype=torch.float64)
    method.double().train()
    normalise_in_float64(method.backbone)
    for network, seed in ((method.backbone, 1000), (method.embedding, 2000), (method.student, 3000)):
        fill(getattr(network, "network", network), seed)
    loss = method.loss(Batch(images))
    loss.backward()
    assert loss.item() == pytest.approx(float(REFERENCE[f"{case}_loss"]), rel=1e-9)
    gradients = [one.grad for one in (*method.embedding.parameters(), *method.student.parameters())]
    picked = [float(one.flatten()[one.numel() // 3]) for one in gradients if one is not None]
    np.testing.assert_allclose(picked, REFERENCE[f"{case}_gradient"], rtol=1e-6, atol=1e-12)
    norms = [float(one.norm()) for one in gradients if one is not None]
    np.testing.assert_allclose(norms, REFERENCE[f"{case}_norms"], rtol=1e-6, atol=1e-12)
    with torch.no_grad():
        prediction = method.eval().predict(Inputs(images))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::5, ::3], REFERENCE[f"{case}_maps"], rtol=1e-6)
    np.testing.assert_allclose(prediction.scores, REFERENCE[f"{case}_scores"], rtol=1e-6)


def test_the_published_networks_have_as_many_parameters() -> None:
    channels = Given.channels
    with torch.device("meta"):
        networks = (OneClassEmbedding(channels, 3, 0.5), ReverseDecoder(channels, [3, 4, 6], 0.5))
    count = sum(one.numel() for network in networks for one in network.parameters())
    assert count == int(REFERENCE["parameters"])


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "mobilenetv2_100.tf_in1k", "test_resnet.r160_in1k"])
def test_the_student_gives_the_teachers_shapes(name: str) -> None:
    method = small(name)
    known, restored = method.levels(torch.rand(2, 3, 64, 96))
    assert [one.shape for one in known] == [one.shape for one in restored]
    assert method.embedding(known).shape == (2, 2 * method.backbone.channels[2], 2, 3)


def test_a_student_that_restores_everything_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    method, images = small(), tiny.textures(2)
    known = method.backbone(images)
    monkeypatch.setattr(method, "levels", lambda _: (known, [3 * one for one in known]))
    assert method.loss(Batch(images)).item() == pytest.approx(0, abs=1e-6)
    assert method.predict(Inputs(images)).scores.abs().max() < 1e-5


def test_the_loss_sees_a_level_as_one_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaling a whole map changes nothing; scaling one of its positions does, unlike on the anomaly map."""
    method = small()
    known, restored = (features([(4, 2, 2)] * 3, 1, seed) for seed in (1, 2))
    monkeypatch.setattr(method, "levels", lambda _: (known, restored))
    before = method.loss(Batch(torch.empty(0)))
    restored[0] *= 5
    torch.testing.assert_close(method.loss(Batch(torch.empty(0))), before)
    images = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    scores = method.predict(Inputs(images)).scores
    restored[0][:, :, 0, 0] *= 5
    assert not torch.isclose(method.loss(Batch(torch.empty(0))), before)
    torch.testing.assert_close(method.predict(Inputs(images)).scores, scores)


def test_training_lowers_the_loss_of_embedding_and_student_alone() -> None:
    method, images = small(epochs=8), tiny.textures(6)
    teacher = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    learnt = [one.clone() for one in (*method.embedding.parameters(), *method.student.parameters())]
    before = method.train().loss(Batch(images)).item()
    method.fit(tiny.TensorTrainSet(images), Run())
    assert method.loss(Batch(images)).item() < 0.7 * before
    assert all(torch.equal(value, teacher[key]) for key, value in method.backbone.state_dict().items())
    now = (*method.embedding.parameters(), *method.student.parameters())
    assert not any(torch.equal(one, other) for one, other in zip(learnt, now, strict=True))


def test_sizes_that_do_not_come_back_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32; got 64x72"):
        small().fit(tiny.TensorTrainSet(torch.zeros(2, 3, 64, 72)), Run())


def test_levels_that_do_not_halve_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'test_resnet.r160_in1k' gives strides \[4, 8\]"):
        rd4ad(Backbone("test_resnet.r160_in1k", [1, 2], "random"), **TINY)


def test_a_stage_without_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"3 numbers.*\[2, 2\]"):
        rd4ad(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), **{**TINY, "blocks": [2, 2]})
