"""A pretrained network that a method trains on, cut into the stages between its levels."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.stages import Stages


class Finetuned(nn.Module):
    """(B, 3, H, W) in [0, 1] -> the same levels as `backbone`, from a copy of its weights that is trained on.

    `stages` are run one after the other and each ends at a level, for methods that put layers in between.
    Unlike the backbone it follows train() and eval(); its batch norms do not where the file of weights says
    that they are folded into the convolutions, for statistics of a batch would undo what was folded.
    Raises UsageError for a network that is no chain.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.stages = nn.ModuleList(_stages(backbone))
        self.stages.requires_grad_(True)
        self.channels, self.strides = backbone.channels, backbone.strides
        self.folded = backbone.weights.metadata.get("batchnorm") == "folded"
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> one (B, C, h, w) for each of the backbone's layers."""
        levels = [self.normalised(images)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]

    def train(self, mode: bool = True) -> Finetuned:
        """As every module, but for folded batch norms, which stay in eval mode."""
        super().train(mode)
        for module in self.modules() if self.folded else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def normalised(self, images: Tensor) -> Tensor:
        """The images as the network was pretrained on them."""
        return (images - self.mean) / self.std


def _stages(backbone: Backbone) -> list[nn.Sequential]:
    """Copies of the network's modules, in their order, from the input or the last level to the next."""
    network: Any = backbone.network
    if isinstance(network, Stages):
        chain = [
            (module, tapped and module is stage[-1]) for stage, tapped in network.chain() for module in stage
        ]
    elif hasattr(network, "return_layers"):  # timm's FeatureListNet: a chain of children, ResNets among them
        chain = [(module, name in network.return_layers) for name, module in network.items()]
    elif hasattr(network, "conv_stem") and isinstance(getattr(network, "blocks", None), nn.Sequential):
        taps = {info["stage"] for info in network.feature_info.get_dicts()}
        chain = [(module, False) for module in (network.conv_stem, network.bn1)]
        chain += [(block, number in taps) for number, block in enumerate(network.blocks, start=1)]
    else:
        chain = []
    stages, since = [], []
    for module, tapped in chain:
        since.append(copy.deepcopy(module))
        if tapped:
            stages.append(nn.Sequential(*since))
            since = []
    if len(stages) != len(backbone.layers):
        raise UsageError(
            f"'{backbone.name}' cannot be cut at its layers {list(backbone.layers)}: no chain of stages that "
            "timm names. Take a ResNet, such as resnet18.tv_in1k"
        )
    return stages
