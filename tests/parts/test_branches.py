"""An HRNet's branches against timm's own network, and what has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.student import Student

NAME = "hrnet_w18_small.ms_in1k"


def test_they_are_what_leaves_the_last_stage(tmp_path: Path) -> None:
    """From a file that holds the whole classifier, of which nothing is read."""
    torch.manual_seed(0)
    network, path = timm.create_model("hrnet_w18_small").eval(), tmp_path / "whole.safetensors"
    save_file(network.state_dict(), path)
    backbone, images = Backbone(NAME, ["branches.1", "branches.3"], str(path)), torch.rand(1, 3, 64, 64)
    backbone, network, images = backbone.double(), network.double(), images.double()
    with torch.no_grad():
        stem = (images - backbone.mean) / backbone.std
        for name in ("conv1", "bn1", "act1", "conv2", "bn2", "act2"):
            stem = getattr(network, name)(stem)
        wanted = network.stages(stem)
        found = backbone(images)
    torch.testing.assert_close(found[0], wanted[1])
    torch.testing.assert_close(found[1], wanted[3])
    assert backbone.channels == tuple(one.shape[1] for one in found) == (32, 128)
    assert backbone.strides == tuple(64 // one.shape[2] for one in found) == (8, 32)
    assert [one.shape for one in Student(backbone).double()(images)] == [one.shape for one in found]


@pytest.mark.parametrize(
    ("name", "layers", "match"),
    [
        ("test_resnet.r160_in1k", ["branches.1"], "those of HRNets.*'test_resnet' is none"),
        (NAME, ["branches.2", "branches.1"], "from the finest to the coarsest"),
        (NAME, ["branches.1", "branches.1"], "from the finest to the coarsest"),
        (NAME, ["branches.4"], "EfficientNet family"),
    ],
)
def test_what_is_no_branch_is_refused(name: str, layers: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Backbone(name, layers, "random")
