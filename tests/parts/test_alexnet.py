"""AlexNet through timm's registry is torchvision's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import AlexNet

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone


def test_features_are_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = AlexNet().eval()
    file = tmp_path / "alexnet.tv_in1k.safetensors"
    save_file(network.state_dict(), file)
    backbone = Backbone("alexnet.tv_in1k", [0, 1, 2, 3], str(file))
    images = torch.rand(2, 3, 96, 128)
    x = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        found = backbone(images)
        for place, layer in enumerate(network.features):
            x = layer(x)
            if place in (1, 4, 11, 12):
                torch.testing.assert_close(found.pop(0), x.clone(), rtol=1e-4, atol=1e-6)
    assert not found
    assert backbone.channels == (64, 192, 256, 256)
    assert backbone.strides == (4, 8, 16, 32)


def test_only_what_the_layers_need_is_built() -> None:
    backbone = Backbone("alexnet.tv_in1k", [1], "random")
    assert [key for key in backbone.state_dict() if key.endswith("weight")] == [
        "network.features_0.weight",
        "network.features_3.weight",
    ]
    with pytest.raises(UsageError, match=r"no feature layers \[4\]"):
        Backbone("alexnet.tv_in1k", [4], "random")
