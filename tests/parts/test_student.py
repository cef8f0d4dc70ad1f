"""The student: the teacher's twin in everything but its weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.student import Student, draw_weights


def student(name: str, seed: int = 0) -> tuple[Backbone, Student]:
    teacher = Backbone(name, [1, 2, 3], "random")
    torch.manual_seed(seed)
    return teacher, Student(teacher)


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "mobilenetv2_100.tf_in1k", "test_resnet.r160_in1k"])
def test_same_shapes_other_weights(name: str) -> None:
    teacher, twin = student(name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    taught, learnt = teacher(images), twin(images)
    assert [one.shape for one in taught] == [one.shape for one in learnt]
    assert not any(torch.allclose(one, other) for one, other in zip(taught, learnt, strict=True))
    for (key, one), other in zip(teacher.network.named_parameters(), twin.network.parameters(), strict=True):
        assert other.requires_grad, key
        assert not one.requires_grad, key
        assert one.ndim < 2 or not torch.equal(one, other), key
    torch.stack([one.mean() for one in learnt]).sum().backward()
    assert all(one.grad is not None for one in twin.parameters())
    assert all(one.grad is None for one in teacher.parameters())


def test_it_normalises_as_the_teacher_does() -> None:
    teacher, twin = student("mobilenetv2_100.tf_in1k")
    twin.network.load_state_dict(teacher.network.state_dict())
    images = torch.rand(1, 3, 64, 64)
    for one, other in zip(teacher(images), twin.eval()(images), strict=True):
        assert torch.equal(one, other)


def test_weights_are_drawn_as_torchvision_draws_its_resnets() -> None:
    """No block starts as the identity, as timm's own ResNets do; the variance is 2 over the fan-out."""
    torch.manual_seed(0)
    network = student("resnet18.tv_in1k")[1].network
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
            assert not layer.bias.any()
            assert not layer.running_mean.any()  # type: ignore[union-attr]
        elif isinstance(layer, nn.Conv2d):
            wanted = math.sqrt(2 / (layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels))
            assert layer.weight.std().item() == pytest.approx(wanted, rel=0.1)


def test_a_depthwise_convolution_has_the_fan_out_of_its_group() -> None:
    layer = nn.Conv2d(4000, 4000, 3, groups=4000)
    torch.manual_seed(0)
    assert draw_weights(layer) == []
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_the_seed_draws_it() -> None:
    weights = [next(student("test_resnet.r160_in1k", seed)[1].parameters()) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_it_follows_train_and_eval() -> None:
    twin = student("test_resnet.r160_in1k")[1]
    assert twin.train().network.training
    assert not twin.eval().network.training


class Positioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(3))
        self.layer = nn.Linear(3, 3)


def test_what_cannot_be_drawn_is_refused() -> None:
    assert draw_weights(Positioned()) == ["position"]
    teacher = Backbone("test_resnet.r160_in1k", [1], "random")
    teacher.network = Positioned()
    with pytest.raises(UsageError, match=r"test_resnet.*position.*resnet18"):
        Student(teacher)
