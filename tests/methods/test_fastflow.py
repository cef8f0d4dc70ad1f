"""FastFlow against a public implementation, and what its paper says of it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Batch, Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.fastflow import FastFlow
from ad_bench.parts.backbone import Backbone
from tests import tiny

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "fastflow.npz")


class Given(nn.Module):
    """Stands for a backbone: the same levels whatever the images."""

    def __init__(self, levels: list[Tensor]):
        super().__init__()
        self.levels, self.channels = levels, [level.shape[1] for level in levels]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[: len(images)] for level in self.levels]


def fastflow(backbone: nn.Module, **changed: object) -> FastFlow:
    settings: dict[str, object] = {
        "steps": 2,
        "kernels": [3],
        "hidden_ratio": 1.0,
        "attention": [None],
        "clamp": 2.0,
        "base": "standard",
        "epochs": 1,
        "batch_size": 4,
        "optimizer": partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-5),
    }
    torch.manual_seed(0)
    return FastFlow(backbone, **{**settings, **changed})  # type: ignore[arg-type]


def real(**changed: object) -> FastFlow:
    return fastflow(Backbone("test_resnet.r160_in1k", [1, 2, 3], "random"), **changed)


def ours(name: str) -> str | None:
    """The name of one of our parameters in the reference's words; None for what it does not have."""
    parts = name.removeprefix("maps.").split(".")
    if parts[0] == "norms":
        return ".".join(parts)
    if parts[0] == "flows":
        head = f"nf_flows.{parts[1]}.module_list.{parts[3]}"
        tail = {"scale": "global_scale", "shift": "global_offset", "mixing": "w_perm"}
        return f"{head}.{tail.get(parts[4], '.'.join(parts[4:]))}"
    return None


@pytest.mark.parametrize(
    ("case", "kernels", "ratio", "steps"), [("3x3", [3], 1.0, 3), ("3x3 and 1x1", [3, 1], 0.5, 4)]
)
def test_agrees_with_the_public_code(case: str, kernels: list[int], ratio: float, steps: int) -> None:
    """Loss, every gradient and the map of gathierry/FastFlow, run by scripts/make_fastflow_fixture.py."""
    levels = [torch.from_numpy(REFERENCE[f"level{i}"]) for i in range(2)]
    method = fastflow(Given(levels), kernels=kernels, hidden_ratio=ratio, steps=steps)
    state = {}
    for name, value in method.state_dict().items():
        weight = torch.from_numpy(REFERENCE[f"{case}/weight/{ours(name)}"])
        if name.endswith("mixing"):  # a matrix of zeros and ones there
            weight = weight.flatten(1).argmax(1)
        state[name] = weight if name.startswith("maps.norms") else weight.reshape(value.shape)
    method.load_state_dict(state)
    images = torch.zeros(3, 3, 32, 32)
    loss = method.loss(Batch(images))
    loss.backward()
    torch.testing.assert_close(loss, torch.from_numpy(REFERENCE[f"{case}/loss"]), rtol=1e-5, atol=0)
    for name, parameter in method.named_parameters():
        wanted = torch.from_numpy(REFERENCE[f"{case}/gradient/{ours(name)}"]).reshape(parameter.shape)
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    prediction = method.predict(Inputs(images))
    wanted = torch.from_numpy(REFERENCE[f"{case}/map"])
    torch.testing.assert_close(prediction.maps, wanted, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(prediction.scores, wanted.amax((1, 2)), rtol=1e-4, atol=1e-7)


def test_a_fresh_flow_gives_the_normalised_features_back() -> None:
    """With silent subnets a flow only shuffles channels: the loss is that of the features."""
    levels = [torch.randn(2, 6, 8, 8), 3 * torch.randn(2, 4, 4, 4) + 1]
    method = fastflow(Given(levels))
    for module in method.maps.flows.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    images = torch.zeros(2, 3, 32, 32)
    method.fit(tiny.TensorTrainSet(torch.empty(0, 3, 32, 32)), Run())
    # LayerNorm makes the mean square of a whole level 1, so 0.5 |z|^2 is half its number of values
    wanted = 0.5 * (6 * 64 + 4 * 16)
    assert method.loss(Batch(images)).item() == pytest.approx(wanted, rel=1e-4)
    for (z, log_det), level in zip(method.maps.latents(levels), levels, strict=True):
        assert log_det.abs().max() < 1e-3
        normal = (level - level.mean((1, 2, 3), True)) / level.std((1, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(z.sum(1), normal.sum(1), rtol=1e-3, atol=1e-3)


def test_maps_lie_between_minus_one_and_zero_and_training_lowers_the_loss() -> None:
    train = tiny.TensorTrainSet(tiny.textures(8))
    method = real(epochs=1)
    method.fit(train, Run())
    first = method.loss(Batch(train.images)).item()
    method.recipe["epochs"] = 15
    method.fit(train, Run())
    assert method.loss(Batch(train.images)).item() < first - 100
    with torch.no_grad():
        prediction = method.predict(Inputs(tiny.planted(tiny.textures(3, seed=4))[0]))
    assert prediction.maps is not None
    assert prediction.maps.shape == (3, 64, 64)
    assert -1 <= prediction.maps.min() < prediction.maps.max() <= 0
    assert torch.equal(prediction.scores, prediction.maps.amax((1, 2)))


def test_parameters_are_as_many_as_the_architecture_says() -> None:
    """Each step: a subnet from the first half to twice the second, a scale and a shift for each channel."""

    def subnet(channels: int, kernel: int) -> int:
        half, out = channels - channels // 2, 2 * (channels // 2)
        return half * half * kernel**2 + half + half * out * kernel**2 + out

    method = real(steps=3, kernels=[3, 1])
    for flow, count in zip(method.maps.flows, method.backbone.channels, strict=True):
        wanted = 2 * subnet(count, 3) + subnet(count, 1) + 3 * 2 * count
        assert sum(parameter.numel() for parameter in flow.parameters()) == wanted


def test_the_norm_takes_its_shape_from_features_or_from_a_state() -> None:
    method, other = real(), real()
    method.fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    assert [tuple(norm.weight.shape[1:]) for norm in method.maps.norms] == [(16, 16), (8, 8), (4, 4)]
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.maps.norms[0].weight, method.maps.norms[0].weight)
    before = method.maps.norms[0].weight
    method.load_state_dict(other.state_dict())
    assert method.maps.norms[0].weight is before, "an optimiser that holds it would lose it"
    with pytest.raises(ValueError, match="at the size it was fitted with"):
        method.predict(Inputs(torch.zeros(1, 3, 128, 128)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kernels": []}, "kernels"),
        ({"kernels": [2]}, "odd"),
        ({"hidden_ratio": 0.0}, "hidden_ratio"),
        ({"attention": []}, "attention"),
        ({"steps": 0}, "at least one step"),
        ({"clamp": -1.0}, "clamp"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        real(**changed)


def test_the_loss_is_minus_the_log_density_of_the_features() -> None:
    """Eq. 5 by hand, up to its constant: the determinant by autograd."""
    level = torch.randn(3, 4, 2, 2)
    method = fastflow(Given([level]), steps=1)
    method.maps.norms[0].take_shape(level[0])  # type: ignore[operator]
    block = method.maps.flows[0].blocks[0]  # type: ignore[index, union-attr]
    nn.init.constant_(block.scale, 3.0)
    features = method.maps.norms[0](level)
    jacobians = [
        torch.autograd.functional.jacobian(lambda x: block(x[None])[0][0].flatten(), one).reshape(16, 16)
        for one in features
    ]
    log_det = torch.stack([torch.linalg.slogdet(one)[1] for one in jacobians])
    z = block(features)[0]
    density = -0.5 * z.square().flatten(1).sum(1) - 8 * math.log(2 * math.pi) + log_det
    wanted = -density.mean() - 8 * math.log(2 * math.pi)
    torch.testing.assert_close(method.loss(Batch(torch.zeros(3, 3, 8, 8))), wanted, rtol=1e-4, atol=1e-4)
