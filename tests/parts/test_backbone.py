"""The frozen network: what it returns, what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ad_bench.errors import UsageError, WeightsError
from ad_bench.parts.backbone import Backbone

TINY = "test_resnet.r160_in1k"


def tiny(layers: tuple[int, ...] = (2, 3), weights: str = "random") -> Backbone:
    return Backbone(TINY, layers, weights)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A whole test_resnet, classifier included, with BatchNorm statistics of its own."""
    torch.manual_seed(3)
    network = timm.create_model("test_resnet")
    network.train()
    network(torch.randn(8, 3, 64, 64))
    return network.state_dict()


def saved(state: dict[str, Tensor], path: Path, **metadata: str) -> str:
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata or None)
    return str(path)


def test_layers_are_timms_stages(state: dict[str, Tensor], tmp_path: Path) -> None:
    """layers [2, 3] are the outputs of layer2 and layer3, of normalised images."""
    weights = saved(state, tmp_path / f"{TINY}.safetensors")
    backbone = Backbone(TINY, [2, 3], weights)
    images = torch.rand(2, 3, 96, 64)
    network = timm.create_model("test_resnet")
    network.load_state_dict(state)
    network.eval()
    x = (images - 0.5) / 0.5  # timm's statistics for the tag
    x = network.layer1(network.maxpool(network.act1(network.bn1(network.conv1(x)))))
    second = network.layer2(x)
    third = network.layer3(second)
    for got, wanted in zip(backbone(images), (second, third), strict=True):
        torch.testing.assert_close(got, wanted)
    assert backbone.channels == (48, 192)
    assert backbone.strides == (8, 16)
    assert not any(key.startswith("network.layer4") for key in backbone.state_dict())


def test_stays_frozen_in_a_training_host() -> None:
    backbone = tiny()
    host = nn.Sequential(backbone, nn.BatchNorm2d(3)).train()
    assert host[1].training
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_gradients_reach_the_images() -> None:
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    tiny()(images)[1].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_random_weights_depend_on_the_name_alone() -> None:
    torch.manual_seed(1)
    one = tiny()
    drawn = torch.rand(1)
    torch.manual_seed(2)
    two = tiny()
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "building a backbone disturbed the caller's random numbers"


def test_statistics_come_from_the_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    weights = saved(state, tmp_path / "a.safetensors", mean="0.1,0.2,0.3", std="0.4,0.5,0.6")
    backbone = Backbone("test_resnet.of_mine", [2], weights)
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_statistics_of_timms_tag() -> None:
    backbone = Backbone("resnet18.tv_in1k", [1], "random")
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize(
    "metadata", [{}, {"mean": "0.1,0.2", "std": "1,1"}, {"mean": "a,b,c", "std": "1,1,1"}]
)
def test_unknown_statistics_are_refused(
    state: dict[str, Tensor], tmp_path: Path, metadata: dict[str, str]
) -> None:
    with pytest.raises(WeightsError, match="mean"):
        Backbone("test_resnet.of_mine", [2], saved(state, tmp_path / "a.safetensors", **metadata))


def test_half_precision_files_become_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    backbone = Backbone(TINY, [2, 3], saved(half, tmp_path / "half.safetensors"))
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}
    assert all(level.isfinite().all() for level in backbone(torch.rand(1, 3, 64, 64)))


def test_deeper_stages_may_be_absent(state: dict[str, Tensor], tmp_path: Path) -> None:
    part = {key: value for key, value in state.items() if not key.startswith(("layer4", "fc", "layer3"))}
    weights = saved(part, tmp_path / "part.safetensors")
    assert Backbone(TINY, [1, 2], weights).channels == (32, 48)
    with pytest.raises(WeightsError, match=r"tensors missing: layer3\.0\.conv1\.weight"):
        Backbone(TINY, [2, 3], weights)


def test_wrong_keys_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    renamed = {f"module.{key}": value for key, value in state.items()}
    with pytest.raises(WeightsError, match=r"missing: conv1\.0\.weight, .*with timm's names") as caught:
        Backbone(TINY, [2, 3], saved(renamed, tmp_path / "renamed.safetensors"))
    assert str(tmp_path / "renamed.safetensors") in str(caught.value)


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    """resnet34 has all tensors of resnet18, in the same shapes, and more blocks."""
    whole = timm.create_model("resnet34").state_dict()
    bigger = {key: value for key, value in whole.items() if not key.startswith(("layer3", "layer4"))}
    with pytest.raises(WeightsError, match=r"unknown: layer1\.2\."):
        Backbone("resnet18.tv_in1k", [1, 2], saved(bigger, tmp_path / "resnet34.safetensors"))


def test_tensors_of_another_shape_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    wider = {**state, "layer2.0.conv1.weight": torch.zeros(64, 32, 1, 1)}
    with pytest.raises(
        WeightsError, match=r"another shape: layer2\.0\.conv1\.weight \(64, 32, 1, 1\) instead of"
    ):
        Backbone(TINY, [1, 2], saved(wider, tmp_path / "wide.safetensors"))


class Malicious:
    def __init__(self, touched: Path):
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.touched,))


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, old: bool) -> None:
    touched, path = tmp_path / "touched", tmp_path / "evil.pth"
    if old:
        path.write_bytes(pickle.dumps({"conv1.weight": Malicious(touched)}))
    else:
        torch.save({"conv1.weight": Malicious(touched)}, path)
    with pytest.raises(WeightsError, match="refused"):
        Backbone(TINY, [2, 3], str(path))
    assert not touched.exists()


def test_a_plain_pth_works(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "plain.pth")
    images = torch.rand(1, 3, 64, 64)
    safe = Backbone(TINY, [2, 3], saved(state, tmp_path / "safe.safetensors"))
    for one, two in zip(
        Backbone(TINY, [2, 3], str(tmp_path / "plain.pth"))(images), safe(images), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02K\x01."])
def test_other_files_named_pth_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        Backbone(TINY, [2, 3], str(tmp_path / "bad.pth"))


def test_a_cut_off_file_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = Path(saved(state, tmp_path / "cut.safetensors"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="damaged"):
        Backbone(TINY, [2, 3], str(path))


@pytest.mark.parametrize("layers", [[], [3, 2], [2, 2], [2, 9], [-1]])
def test_impossible_layers_are_refused(layers: list[int]) -> None:
    with pytest.raises(UsageError, match="layers"):
        Backbone(TINY, layers, "random")


def test_a_misspelt_network_is_answered_with_the_closest() -> None:
    with pytest.raises(WeightsError, match=r"no model 'resnt18'.*resnet18"):
        Backbone("resnt18.tv_in1k", [2], "random")


def test_networks_of_other_families_run_no_further_than_needed(tmp_path: Path) -> None:
    whole = timm.create_model("mobilenetv2_100", features_only=True, out_indices=(1, 2, 3)).eval()
    full = timm.create_model("mobilenetv2_100")
    whole.load_state_dict(full.state_dict(), strict=False)
    weights = saved(full.state_dict(), tmp_path / "m.safetensors", mean="0,0,0", std="1,1,1")
    backbone = Backbone("mobilenetv2_100.ra_in1k", [1, 2, 3], weights)
    images = torch.rand(1, 3, 64, 64)
    for one, two in zip(backbone(images), whole(images), strict=True):  # in another layout of memory
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    assert not any("blocks.5" in key for key in backbone.state_dict())


def test_densenet_keys_find_their_place(tmp_path: Path) -> None:
    """timm flattens the first two levels of names in its feature networks of this family."""
    full = timm.create_model("densenet121").eval()
    weights = saved(full.state_dict(), tmp_path / "d.safetensors", mean="0,0,0", std="1,1,1")
    backbone = Backbone("densenet121.tv_in1k", [2, 3], weights)
    images = torch.rand(1, 3, 64, 64)
    x = images
    for name, module in full.features.named_children():
        x = module(x)
        if name == "denseblock2":
            torch.testing.assert_close(backbone(images)[0], x)
            return
    raise AssertionError("no denseblock2")


def test_padding_of_the_file_is_used(test_weights: Path) -> None:
    """TensorFlow's weights were trained with its SAME padding, which the file of weights states."""
    path = test_weights / "mobilenetv2_100.tf_in1k.safetensors"
    backbone = Backbone("mobilenetv2_100.tf_in1k", [1, 2, 3], str(path))
    assert type(backbone.network.conv_stem).__name__ == "Conv2dSame"
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_real_resnet18_without_layer4(test_weights: Path) -> None:
    weights = str(test_weights / "resnet18.tv_in1k.safetensors")
    backbone = Backbone("resnet18.tv_in1k", [1, 2, 3], weights)
    assert backbone.channels == (64, 128, 256)
    assert backbone.weights.sha256 is not None
    assert backbone.weights.sha256.startswith("b2e4be246ffcecd6")
    with pytest.raises(WeightsError, match=r"missing: layer4\.0\.conv1\.weight"):
        Backbone("resnet18.tv_in1k", [3, 4], weights)
