"""RegAD against the authors' code, and what its paper says of it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.regad import RegAD
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.pool import Pool
from scripts.seeded import drawn, fill
from tests import tiny

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "regad.npz")
SAMPLED = int(REFERENCE["sampled"])
QUERIES, SHOTS = int(REFERENCE["queries"]), int(REFERENCE["shots"])


def regad(name: str = "test_resnet.r160_in1k", **changed: object) -> RegAD:
    settings: dict[str, object] = {
        "grids": [14, 7, 4],
        "epochs": 1,
        "batch_size": 4,
        "optimizer": partial(torch.optim.SGD, lr=1e-4, momentum=0.9),
        "eps": 0.01,
        "sigma": 4.0,
    }
    torch.manual_seed(0)
    return RegAD(Backbone(name, [1, 2, 3], "random"), **{**settings, **changed})  # type: ignore[arg-type]


def with_support(images: Tensor, support: Tensor) -> tiny.TensorTrainSet:
    train = tiny.TensorTrainSet(images)
    train.support = tiny.TensorTrainSet(support)
    return train


def theirs(name: str) -> str:
    """One of our parameters or buffers in the reference's words."""
    first, number, *rest = name.split(".")
    if first in ("encoder", "predictor"):
        kind = "conv" if int(number) % 3 == 0 else "bn"
        return f"{first}.{kind}{int(number) // 3 + 1}.{rest[0]}"
    if first == "transformers":
        part, layer, *rest = rest
        if part == "decide":
            part, layer = "fc", str(int(layer) - 1)
        return ".".join([f"network.stn{int(number) + 1}", {"look": "conv"}.get(part, part), layer, *rest])
    stage, module, *rest = rest
    names = ("conv1", "bn1", "act1", "maxpool", "layer1") if stage == "0" else (f"layer{int(stage) + 1}",)
    return ".".join(["network", names[int(module)], *rest])


@pytest.fixture(scope="module")
def filled() -> RegAD:
    """A whole ResNet-18 with the fixture's weights."""
    method = regad("resnet18.tv_in1k")
    kept = ("features.mean", "features.std", "gaussian.mean.points", "gaussian.whitening.points")
    fill({theirs(name): value for name, value in method.state_dict().items() if name not in kept})
    for transformer in method.transformers:
        last = transformer.decide[-1]
        last.weight.data *= 0.1
        last.bias.data += torch.tensor([0.0, 1.0, 1.0])
    return method.train()


# The reference's own, measured in double precision: its levels are off by up to 4e-4, its loss by 1.2e-4, and
# its gradients, which batch statistics of few images amplify, by up to 7e-2.
ROUNDING, ROUNDING_OF_GRADIENTS = 1e-3, 1e-1


def test_loss_and_gradients_equal_the_reference(filled: RegAD) -> None:
    method = copy.deepcopy(filled).double()
    others = drawn("others", (1, QUERIES, SHOTS, 3, 224, 224)).sigmoid()[0].flatten(0, 1).double()
    loss = method.loss(drawn("queries", (1, QUERIES, 3, 224, 224)).sigmoid()[0].double(), others)
    loss.backward()
    assert loss.item() == pytest.approx(REFERENCE["loss"].item(), rel=ROUNDING)
    named = {theirs(name): one for name, one in method.named_parameters()}
    checked = [key for key in REFERENCE.files if key.startswith("gradient ")]
    assert len(checked) == 7
    for key in checked:
        gradient, wanted = named[key.removeprefix("gradient ")].grad, REFERENCE[key]
        assert gradient is not None
        error = np.abs(gradient.flatten()[::SAMPLED].numpy() - wanted).max()
        assert error < ROUNDING_OF_GRADIENTS * np.abs(wanted).max(), key


def test_levels_in_their_places_equal_the_reference(filled: RegAD) -> None:
    with torch.no_grad():
        _, levels = filled.transformed(drawn("queries", (1, QUERIES, 3, 224, 224)).sigmoid()[0])
    for number, level in enumerate(levels, start=1):
        wanted = REFERENCE[f"level {number}"]
        error = np.abs(level.flatten()[::SAMPLED].numpy() - wanted).max()
        assert error < ROUNDING * np.abs(wanted).max()


def test_maps_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """For given features of support and queries; the support is 22 times as many images as the shots."""

    def given(name: str, count: int) -> list[Tensor]:
        shapes = REFERENCE["levels"].tolist()
        return [drawn(f"{name} {channels}", (count, channels, side, side)) for channels, side in shapes]

    queries = [given(f"query{number}", 1) for number in range(QUERIES)]
    now = given("support", 22 * SHOTS)
    method = regad()
    monkeypatch.setattr(method, "transformed", lambda _: (now[-1], now))
    images = torch.zeros(QUERIES, 3, 32, 32)
    method.gaussian.fit([method.embed(images).flatten(2).transpose(1, 2)])
    now = [torch.cat(level) for level in zip(*queries, strict=True)]
    maps = method.predict(Inputs(images)).maps
    assert maps is not None
    np.testing.assert_allclose(maps, REFERENCE["maps"], rtol=1e-4)


def test_queries_meet_others_of_their_own_category() -> None:
    pool = Pool(tiny.TensorTrainSet(torch.rand(12, 3, 8, 8)))
    pool.category = tuple("aaaaaabbbbbc")
    pairs = list(regad().comparisons(pool, 3, torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([queries for queries, _ in pairs]).tolist()) == list(range(12))
    for queries, others in pairs:
        assert len({pool.category[i] for i in [*queries, *others]}) == 1
        for query, compared in zip(queries.tolist(), others.view(-1, 3).tolist(), strict=True):
            assert query not in compared or pool.category[query] == "c"


def test_training_draws_images_together() -> None:
    images = tiny.textures(8)
    method = regad(epochs=6, optimizer=partial(torch.optim.SGD, lr=0.02, momentum=0.9))
    with torch.no_grad():
        before = method.loss(images[:4], images[4:]).item()
    method.fit(with_support(images, images[:2]), Run())
    with torch.no_grad():
        assert method.train().loss(images[:4], images[4:]).item() < before - 0.05


def test_the_support_alone_decides_what_is_normal() -> None:
    """The same weights, another support: what it shows scores low."""
    method, weave = regad(epochs=0), tiny.textures(6)
    inverted = 1 - weave
    scores = []
    for support in (weave, inverted):
        method.fit(with_support(weave, support[:2]), Run())
        with torch.no_grad():
            scores.append(method.eval().predict(Inputs(torch.stack([weave[5], inverted[5]]))).scores)
    assert scores[0][0] < scores[0][1]
    assert scores[1][1] < scores[1][0]


def test_without_a_support_refused() -> None:
    with pytest.raises(UsageError, match="leave_one_out"):
        regad().fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    with pytest.raises(UsageError, match="grids"):
        regad(grids=[14, 7])
