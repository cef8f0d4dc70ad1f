"""MemSeg against numbers made by a public reading of it, not by its authors, and the checks of its paper."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ad_bench.contract import Inputs, Run
from ad_bench.errors import UsageError
from ad_bench.methods.memseg import MemSeg
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.perlin import PerlinMasks
from ad_bench.parts.weights import Weights
from tests import tiny

FIXTURE = Path(__file__).parent / "fixtures" / "memseg.npz"
STEM, LEVELS, DEEPEST = (64, 32, 32), [(64, 16, 16), (128, 8, 8), (256, 4, 4)], (512, 2, 2)
SETTINGS: dict[str, Any] = {
    "deepest": "fresh",
    "memory": 5,
    "textures": None,
    "textured": 0.5,
    "distortions": 3,
    "grid": 8,
    "purity": 0.9,
    "masks": PerlinMasks((0, 5), 90, 0.5),
    "opacity": [0.15, 1.0],
    "l1": 0.6,
    "gamma": 4.0,
    "worst": 100,
    "steps": 2,
    "batch_size": 4,
    "warmup": 0.1,
    "last_rate": 1e-4,
    "optimizer": partial(torch.optim.AdamW, lr=3e-3, weight_decay=5e-4),
}
# Their names of the layers, ours first.
NAMES = {
    "fusion.local.{}": "msff.blk{}.conv1",
    "fusion.attention.{}.joint.0": "msff.blk{}.attn.conv1",
    "fusion.attention.{}.joint.1": "msff.blk{}.attn.bn1",
    "fusion.attention.{}.rows": "msff.blk{}.attn.conv_h",
    "fusion.attention.{}.columns": "msff.blk{}.attn.conv_w",
    "fusion.halved.{}.0": "msff.blk{}.conv2.0",
    "fusion.halved.{}.1": "msff.blk{}.conv2.1",
}
THEIRS = {ours.format(i): theirs.format(i + 1) for ours, theirs in NAMES.items() for i in range(3)} | {
    "fusion.down.0": "msff.upconv21.1",
    "fusion.down.1": "msff.upconv32.1",
    "decoder.stem": "decoder.conv",
    "decoder.last": "decoder.final_conv",
    **{
        f"decoder.up.{i}.convolved.{ours}": f"decoder.{name}.blk.{ours + 1}"
        for i, name in enumerate(["upconv3", "upconv2", "upconv1", "upconv0", "upconv2mask"])
        for ours in (0, 1)
    },
}


class Given(nn.Module):
    """Stands for a backbone of known features."""

    def __init__(self, levels: list[Tensor]):
        super().__init__()
        self.levels = levels
        self.channels = [level.shape[1] for level in levels]
        self.layers = list(range(len(levels)))
        self.name = "resnet18.tv_in1k"  # its fourth stage has the channels of the fixture's
        self.weights = Weights(self.name, "random")

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.levels


class Constant(nn.Module):
    def __init__(self, value: Tensor):
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def sines(name: str, shape: tuple[int, ...]) -> Tensor:
    """As scripts/make_memseg_fixture.py."""
    index = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(index * 0.7371 + index**2 * 1e-4 + zlib.crc32(name.encode()) % 1000).view(shape)


def features(who: str, count: int) -> list[Tensor]:
    return [sines(f"{who}{i}", (count, *shape)).abs() for i, shape in enumerate([STEM, *LEVELS, DEEPEST])]


def decoded(count: int) -> Tensor:
    """Images as a data set gives them: bytes over 255."""
    return (tiny.textures(count) * 255).round() / 255


def memseg(backbone: nn.Module | None = None, **changed: object) -> MemSeg:
    torch.manual_seed(0)
    backbone = backbone or Backbone("test_resnet.r160_in1k", [0, 1, 2, 3], "random")
    return MemSeg(backbone, **{**SETTINGS, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.fixture
def theirs() -> MemSeg:
    """Ours with the features, the memory and the weights of the fixture."""
    *levels, deepest = features("image", 3)
    method = memseg(Given(levels)).double()
    method.deepest.stages = nn.ModuleList([Constant(deepest)])
    for bank, level in zip(method.memory, features("memory", 5)[1:-1], strict=True):
        bank.points = level
    with torch.no_grad():
        for ours, value in [
            *method.fusion.named_parameters("fusion"),
            *method.decoder.named_parameters("decoder"),
        ]:
            layer, kind = ours.rsplit(".", 1)
            scale = 1 / np.sqrt(value[0].numel()) if value.ndim > 1 else 0.1
            base = float(value.ndim == 1 and kind == "weight")
            value.copy_(base + scale * sines(f"{THEIRS[layer]}.{kind}", tuple(value.shape)))
    return method.train()


def test_memory_map_and_score_are_theirs(made: dict[str, np.ndarray], theirs: MemSeg) -> None:
    compared = theirs.compare(features("image", 3)[1:-1])
    memory = features("memory", 5)[1]
    own = compared[0][:, :64]
    differences = (own - memory[torch.from_numpy(made["chosen"])]).square()
    torch.testing.assert_close(compared[0][:, 64:], differences)
    with torch.no_grad():
        prediction = theirs.predict(Inputs(torch.zeros(3, 3, 64, 64)))
    assert prediction.maps is not None
    np.testing.assert_allclose(prediction.maps[:, ::3, ::3], made["maps"], rtol=1e-9)
    np.testing.assert_allclose(prediction.scores, made["scores"], rtol=1e-9)


def test_loss_and_gradients_are_theirs(made: dict[str, np.ndarray], theirs: MemSeg) -> None:
    masks = sines("masks", (3, 64, 64)) > 0.6
    loss = theirs.loss(torch.zeros(3, 3, 64, 64), masks)
    loss.backward()
    assert loss.item() == pytest.approx(0.6 * made["losses"][0] + 0.4 * made["losses"][1], rel=1e-4)
    wanted = dict(zip(made["names"].tolist(), made["gradients"].tolist(), strict=True))
    found = {}
    for name, value in theirs.named_parameters():
        layer, _, kind = name.rpartition(".")
        if value.grad is not None:
            ends = value.grad.flatten()[[0, -1]].tolist()
            found[f"{THEIRS[layer]}.{kind}"] = [value.grad.norm().item(), *ends]
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():  # of biases before a batch norm nothing but rounding is left
        assert found[name] == pytest.approx(numbers, rel=1e-4, abs=1e-4 * numbers[0] + 1e-14), name


def test_what_is_remembered_differs_from_itself_by_nothing() -> None:
    images, method = decoded(6), memseg(memory=6).eval()
    method.remember(tiny.TensorTrainSet(images), Run())
    levels = method.backbone(images)[1:]
    for level, compared in zip(levels, method.compare(levels), strict=True):
        assert compared.shape[1] == 2 * level.shape[1]
        torch.testing.assert_close(compared[:, : level.shape[1]], level)
        assert compared[:, level.shape[1] :].abs().max() < 1e-6
    assert method.compare(method.backbone(1 - images)[1:])[0][:, 32:].max() > 1e-4


@pytest.mark.parametrize(("images", "kept"), [(12, 5), (3, 3)])
def test_the_memory_is_a_drawn_part_of_the_training_images(images: int, kept: int) -> None:
    pictures = decoded(images)
    banks = []
    for seed in (0, 0, 1):
        method = memseg().eval()
        method.remember(tiny.TensorTrainSet(pictures), Run(seed))
        banks.append(method.banks()[2])
    every = method.backbone(pictures)[3]
    assert len(banks[0]) == kept
    torch.testing.assert_close(banks[0], banks[1])
    assert images == kept or not torch.equal(banks[0], banks[2])
    assert all((every - one).abs().amax((1, 2, 3)).min() < 1e-5 for one in banks[0])


def test_defects_lie_on_the_product_alone() -> None:
    image = torch.ones(3, 64, 64)
    image[:, 16:48, 16:48] = 0.2 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    method, generator, found = memseg(), torch.Generator().manual_seed(0), 0
    for _ in range(40):
        spoilt, mask = method.spoil(image, generator)
        assert torch.equal(spoilt[:, ~mask], image[:, ~mask])
        assert not mask[:16].any()
        assert not mask[:, 48:].any()
        found += bool(mask.any())
    assert found > 20


def test_every_second_image_has_a_defect_and_the_frozen_stays() -> None:
    images, method = tiny.textures(8), memseg(steps=3)
    seen: list[Tensor] = []
    given: list[Tensor] = []
    loss = method.loss
    method.loss = lambda x, masks: (given.append(x), seen.append(masks), loss(x, masks))[2]  # type: ignore[method-assign, func-returns-value]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.fit(tiny.TensorTrainSet(images), Run())
    masks = torch.stack(seen)
    assert len(masks) == 3, "steps, not epochs"
    assert not masks[:, 0::2].any()
    assert masks[:, 1::2].any()
    for batch, where in zip(given, masks, strict=True):
        alike = [
            [torch.equal(one[:, ~m], image[:, ~m]) for image in images]
            for one, m in zip(batch, where, strict=True)
        ]
        assert sorted(map(sum, alike)) == [1, 1, 1, 1], "but for its defect each is a training image"
        assert torch.tensor(alike).any(0).sum() == 4, "and none is there twice"
    for key, value in method.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(value, before[key]), key
    for part in ("deepest", "fusion", "decoder"):
        assert any(
            not torch.equal(value, before[f"{part}.{key}"])
            for key, value in getattr(method, part).state_dict().items()
            if key.endswith("weight")
        ), f"{part} was not trained"


@pytest.mark.parametrize("metadata", [{}, {"batchnorm": "folded"}])
def test_the_network_s_own_fourth_stage_is_taken_and_trained(
    metadata: dict[str, str], tmp_path: Path
) -> None:
    name = "test_resnet.r160_in1k"
    whole = Backbone(name, [0, 1, 2, 3, 4], "random").network
    file = tmp_path / f"{name}.safetensors"
    save_file({name: one.contiguous() for name, one in whole.state_dict().items()}, file, metadata)
    method = memseg(Backbone(name, [0, 1, 2, 3], str(file)), deepest="pretrained")
    (stage,) = method.deepest.stages
    own = dict(whole["layer4"].named_parameters())
    trained = {key.removeprefix("0."): value for key, value in stage.named_parameters()}
    assert own.keys() == trained.keys()
    assert all(torch.equal(value, trained[key]) for key, value in own.items())
    buffers = {key: value.clone() for key, value in stage.named_buffers()}
    method.fit(tiny.TensorTrainSet(tiny.textures(4)), Run())
    assert all(not torch.equal(value, trained[key]) for key, value in own.items())
    moved = [not torch.equal(value, buffers[key]) for key, value in stage.named_buffers()]
    assert any(moved) is not bool(metadata), "folded batch norms keep their statistics"


def test_a_fresh_fourth_stage_follows_the_seed() -> None:
    first, again = (memseg().deepest.state_dict() for _ in range(2))
    torch.manual_seed(1)
    backbone = Backbone("test_resnet.r160_in1k", [0, 1, 2, 3], "random")
    other = MemSeg(backbone, **SETTINGS).deepest.state_dict()
    convolutions = [key for key, value in first.items() if key.startswith("stages") and value.ndim == 4]
    assert len(convolutions) == 3
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(not torch.equal(first[key], other[key]) for key in convolutions)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"deepest": "frozen"}, "frozen"), ({"memory": 0}, "memory"), ({"steps": 0}, "steps")],
)
def test_impossible_settings_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        memseg(**changed)


def test_other_layers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[1, 2\]"):
        memseg(Backbone("test_resnet.r160_in1k", [1, 2], "random"))
