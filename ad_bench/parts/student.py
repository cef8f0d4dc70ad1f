"""The trainable twin of a frozen backbone: its architecture, its normalisation, weights of its own."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone


class Student(nn.Module):
    """(B, 3, H, W) in [0, 1] -> the same levels as `teacher`, from weights drawn anew and to be trained.

    Drawn from torch's global generator: convolutions from a normal distribution of variance 2 / fan-out (He
    et al., 2015), as torchvision draws its ResNets; norms pass on what they get; other layers as torch does.
    Unlike the teacher it follows train() and eval(). Raises UsageError where the network holds parameters
    that are no layer's own and so cannot be drawn anew, such as the position embedding of a transformer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, teacher: Backbone):
        super().__init__()
        self.network = copy.deepcopy(teacher.network)
        left = draw_weights(self.network)
        if left:
            raise UsageError(
                f"no student of '{teacher.name}' can be drawn: {', '.join(left[:3])} would keep the "
                "teacher's values. Take a convolutional backbone, such as resnet18.tv_in1k"
            )
        self.network.requires_grad_(True)
        self.register_buffer("mean", teacher.mean.clone())
        self.register_buffer("std", teacher.std.clone())
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> one (B, C, h, w) for each of the teacher's layers."""
        levels: list[Tensor] = self.network((images - self.mean) / self.std)
        return levels


@torch.no_grad()
def draw_weights(network: nn.Module) -> list[str]:
    """Draw every layer anew, as `Student` says; the names of the parameters that no layer can draw."""
    left: list[str] = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            fan_out = height * width * layer.out_channels // layer.groups
            layer.weight.normal_(0, math.sqrt(2 / fan_out))
            if layer.bias is not None:
                layer.bias.zero_()
        elif callable(reset := getattr(layer, "reset_parameters", None)):
            reset()  # of a batch norm the running statistics too
        else:
            left += [f"{name}.{own}".lstrip(".") for own, _ in layer.named_parameters(recurse=False)]
    return left
