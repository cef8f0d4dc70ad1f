from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.finetuned import Finetuned

NETWORKS = [
    ("resnet18.tv_in1k", [3]),
    ("resnet18.tv_in1k", [1, 2, 4]),
    ("test_resnet.r160_in1k", [0, 2]),
    ("mobilenetv2_100.tf_in1k", [1, 3]),
    ("efficientnet_b0.ra_in1k", [0, 1, 3]),
]


@pytest.mark.parametrize(("name", "layers"), NETWORKS)
def test_starts_as_the_backbone(name: str, layers: list[int]) -> None:
    backbone = Backbone(name, layers, "random")
    finetuned = Finetuned(backbone).eval()
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in zip(finetuned(images), backbone(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert finetuned.channels == backbone.channels


def test_learns_without_the_backbone() -> None:
    backbone = Backbone("test_resnet.r160_in1k", [1, 2], "random")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    finetuned = Finetuned(backbone)
    assert finetuned.training
    assert all(one.requires_grad for one in finetuned.parameters())
    steps = torch.optim.SGD(finetuned.parameters(), lr=0.1)
    finetuned(torch.rand(2, 3, 32, 32))[-1].square().mean().backward()
    steps.step()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])
    weight = next(finetuned.parameters())
    assert not torch.equal(weight, next(backbone.network.parameters()))


@pytest.mark.parametrize("folded", [False, True])
def test_folded_batch_norms_keep_their_statistics(folded: bool) -> None:
    backbone = Backbone("test_resnet.r160_in1k", [1], "random")
    if folded:
        backbone.weights = replace(backbone.weights, metadata={"batchnorm": "folded"})
    finetuned = Finetuned(backbone).train()
    before = finetuned.state_dict()["stages.0.1.running_mean"].clone()
    finetuned(torch.rand(4, 3, 32, 32))
    assert torch.equal(finetuned.state_dict()["stages.0.1.running_mean"], before) == folded


def test_a_network_that_is_no_chain_is_refused() -> None:
    with pytest.raises(UsageError, match="no chain"):
        Finetuned(Backbone("vit_tiny_patch16_224.augreg_in21k", [0, 1], "random"))
