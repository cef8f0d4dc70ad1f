"""FYD: what it has from PaDiM, what aligning means, and which categories are left as they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.fyd import FYD, apart
from ad_bench.methods.padim import PaDiM
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.spatial_transformer import rotation_scale, warp
from tests import tiny

SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


def fyd(**changed: Any) -> FYD:
    settings: dict[str, Any] = {
        "textures": ["weave", "mosaic"],
        "grids": [4, 4, 2, 1],
        "coarse": 1.0,
        "epochs": 1,
        "batch_size": 4,
        "optimizer": SGD,
        "dimensions": 20,
        "dimension_seed": 1024,
        "eps": 0.01,
        "sigma": 2.0,
    }
    torch.manual_seed(0)
    return FYD(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), **(settings | changed))


class Named(tiny.TensorTrainSet):
    """A training set whose categories are known."""

    def __init__(self, images: Tensor, names: list[str]):
        super().__init__(images)
        self.names = names

    def batches(self, *words: Any, **named: Any) -> Iterator[Batch]:
        start = 0
        for batch in super().batches(*words, **named):
            yield batch._replace(category=tuple(self.names[start : start + len(batch.images)]))
            start += len(batch.images)


@pytest.mark.parametrize("name", ["bottle", "weave"])
def test_untrained_it_is_padim(name: str) -> None:
    """The transformers start with the identity, the trained copy as the frozen network."""
    images, method = tiny.textures(8), fyd(epochs=0)
    train = Named(images, [name] * 8)
    method.train().fit(train, Run())
    assert bool(method.still) == (name == "weave")
    torch.manual_seed(0)
    host = PaDiM(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), 20, 1024, 0.01, 2.0)
    host.fit(train, Run())
    broken = Inputs(tiny.planted(tiny.textures(3, seed=4))[0])
    with torch.no_grad():
        found, wanted = method.eval().predict(broken), host.eval().predict(broken)
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-3, atol=1e-3)


def test_the_loss_knows_no_order() -> None:
    pair = tiny.textures(2)
    method = fyd().train()
    there, back = (method.loss(Batch(images)).item() for images in (pair, pair.flip(0)))
    assert there == pytest.approx(back, abs=1e-5)
    assert fyd(coarse=0.0).train().loss(Batch(pair)).item() == pytest.approx(
        there - apart(method.aligned(pair)[0][0]).item(), abs=1e-4
    )


def test_images_apart_by_brute_force() -> None:
    images = torch.rand(4, 3, 5, 6, requires_grad=True)
    pairs = [(images[i] - images[j]).norm(dim=0).mean() for i in range(4) for j in range(4) if i != j]
    torch.testing.assert_close(apart(images), torch.stack(pairs).mean())
    twins = torch.rand(1, 3, 5, 6).expand(2, -1, -1, -1).clone().requires_grad_()
    apart(twins).backward()
    assert apart(twins).item() == apart(images[:1]).item() == 0
    assert twins.grad is not None
    assert twins.grad.isfinite().all()


def turned(method: FYD, number: int, angle: float) -> None:
    """Let one transformer turn whatever it sees."""
    last: Any = method.transformers[number].decide[-1]
    last.bias.data.copy_(torch.tensor([angle, 1.0, 1.0]))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_map_is_brought_back(number: int) -> None:
    """A quarter turn by any of the transformers: a defect is still found where it is in the image."""
    method, images = fyd(epochs=0).eval(), tiny.textures(10)
    turned(method, number, math.pi / 2)
    method.fit(tiny.TensorTrainSet(images), Run())
    broken = tiny.textures(1, seed=3)
    broken[..., 8:20, 40:52] = 1.0
    with torch.no_grad():
        maps = method.predict(Inputs(broken)).maps
    assert maps is not None
    worst = int(maps.flatten().argmax())
    assert 4 <= worst // 64 < 24
    assert 36 <= worst % 64 < 56


def test_a_position_means_the_same_on_all_levels() -> None:
    """What the last transformer turns, the finer levels are turned by as well."""
    method, images = fyd(dimensions=272).eval(), tiny.textures(2)
    with torch.no_grad():
        before, _ = method.embed(images)
        turned(method, 3, 0.4)
        after, thetas = method.embed(images)
        first = method.features.channels[0]
        turn = rotation_scale(*torch.tensor([[0.4], [1.0], [1.0]])).expand(2, -1, -1)
        wanted = warp(before[:, :first], turn)
    assert len(thetas) == 4
    torch.testing.assert_close(after[:, :first], wanted, rtol=1e-3, atol=1e-4)


def test_training_draws_the_images_together() -> None:
    images = tiny.textures(8)
    method = fyd(epochs=8, optimizer=partial(torch.optim.SGD, lr=0.02, momentum=0.9)).train()
    before = method.loss(Batch(images)).item()
    method.fit(tiny.TensorTrainSet(images), Run())
    assert method.train().loss(Batch(images)).item() < before - 0.05


@pytest.mark.parametrize(
    ("names", "aligned"), [(["weave"], False), (["weave", "mosaic"], False), (["weave", "gear"], True)]
)
def test_textures_alone_are_left_as_they_lie(names: list[str], aligned: bool) -> None:
    notes: dict[str, object] = {}
    run = Run()
    run.note = notes.update  # type: ignore[method-assign, assignment]
    method = fyd(epochs=1).train()
    start = [one.clone() for one in method.transformers.parameters()]
    method.fit(Named(tiny.textures(4), (names * 4)[:4]), run)
    assert notes["aligned"] is aligned
    assert len(method.eval().embed(tiny.textures(1))[1]) == (4 if aligned else 0)
    moved = [not torch.equal(*pair) for pair in zip(start, method.transformers.parameters(), strict=True)]
    assert any(moved) == aligned


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 layers; got \[14, 7, 4\]"):
        fyd(grids=[14, 7, 4])
