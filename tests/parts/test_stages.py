"""Stages of EfficientNets against timm's own forward pass, and against what timm gives by features_only."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ad_bench.errors import UsageError, WeightsError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.finetuned import Finetuned

NAME = "mobilenetv2_050.lamb_in1k"  # of the family, small
ALL = ["stem", *(f"blocks.{number}" for number in range(7)), "head"]


def test_they_are_what_the_network_computes_on_its_way() -> None:
    torch.manual_seed(0)
    backbone = Backbone(NAME, ALL, "random")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = backbone(images)
        network = timm.create_model("mobilenetv2_050").eval()
        network.load_state_dict(backbone.network.state_dict(), strict=False)  # all but the classifier
        normal = (images - backbone.mean) / backbone.std
        torch.testing.assert_close(found[-1], network.forward_features(normal), rtol=1e-4, atol=1e-4)
        expected = network.bn1(network.conv_stem(normal))
        torch.testing.assert_close(found[0], expected)
        for block, output in zip(network.blocks, found[1:-1], strict=True):
            expected = block(expected)
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    assert backbone.channels == tuple(one.shape[1] for one in found)
    assert backbone.strides == tuple(64 // one.shape[2] for one in found) == (2, 2, 4, 8, 16, 16, 32, 32, 32)


def test_weights_beyond_the_last_stage_are_not_needed(tmp_path: Path) -> None:
    whole = timm.create_model("mobilenetv2_050").state_dict()
    path = tmp_path / "some.safetensors"
    save_file({key: value for key, value in whole.items() if not key.startswith("conv_head")}, path)
    backbone = Backbone(NAME, ["blocks.2"], str(path))
    assert torch.equal(backbone.network.conv_stem.weight, whole["conv_stem.weight"])
    assert len(backbone.network.blocks) == 3
    with pytest.raises(WeightsError, match="missing: conv_head"):
        Backbone(NAME, ["head"], str(path))


def test_a_finetuned_copy_gives_the_same_layers() -> None:
    backbone = Backbone(NAME, ["stem", "blocks.3", "head"], "random")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(Finetuned(backbone).eval()(images), backbone(images), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "layers", "match"),
    [
        ("test_resnet.r160_in1k", ["stem"], "EfficientNet family"),
        (NAME, ["blocks.7"], "no stage 'blocks.7'.*blocks"),
        (NAME, ["head", "stem"], "from the stem to the head"),
        (NAME, ["stem", "stem"], "from the stem to the head"),
        (NAME, ["stem", 2], "rising feature indices"),
        (NAME, [], "rising feature indices"),
    ],
)
def test_what_is_no_stage_is_refused(name: str, layers: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Backbone(name, layers, "random")
