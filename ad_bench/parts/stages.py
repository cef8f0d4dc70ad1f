"""Feature maps of every stage of timm's EfficientNets, of which timm itself gives one for each size only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ad_bench.errors import UsageError, closest

STEM, HEAD = "stem", "head"


class Stages(nn.Module):
    """(B, 3, H, W), normalised -> the outputs of `layers`, named `stem`, `blocks.0` to `blocks.6` and `head`.

    `stem` and `head` are a convolution with its norm and activation, each of `blocks` is a stage; what lies
    beyond the last of `layers` is left out. Parameters have timm's names.
    Raises UsageError for another kind of network, for unknown names and for names in another order.
    """

    def __init__(self, network: Any, layers: Sequence[str], model: str):
        super().__init__()
        blocks = getattr(network, "blocks", None)
        if not hasattr(network, "conv_stem") or not isinstance(blocks, nn.Sequential):
            raise UsageError(
                f"layers={list(layers)} names stages, which networks of the EfficientNet family have; "
                f"'{model}' is none. Give timm's feature indices, such as [2, 3]"
            )
        names = [STEM, *(f"blocks.{number}" for number in range(len(blocks))), HEAD]
        for layer in layers:
            if layer not in names:
                raise UsageError(f"'{model}' has no stage '{layer}'.{closest(layer, names, str(names))}")
        places = [names.index(layer) for layer in layers]
        if places != sorted(set(places)):
            raise UsageError(f"stages are named from the stem to the head; got {list(layers)}")
        self.wanted = places
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, blocks[: places[-1]]
        if layers[-1] == HEAD:
            self.conv_head, self.bn2 = network.conv_head, network.bn2
        self.channels, self.strides = self._shapes()

    def chain(self) -> list[tuple[list[nn.Module], bool]]:
        """The modules of each stage in their order, and whether its output is one of the layers."""
        stages: list[list[nn.Module]] = [[self.conv_stem, self.bn1], *([block] for block in self.blocks)]
        if len(stages) == self.wanted[-1]:
            stages.append([self.conv_head, self.bn2])
        return [(stage, place in self.wanted) for place, stage in enumerate(stages)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """One (B, C, h, w) for each of the layers."""
        found = []
        for stage, wanted in self.chain():
            for module in stage:
                images = module(images)
            if wanted:
                found.append(images)
        return found

    @torch.no_grad()
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Channels and strides of the layers, by a small image."""
        training, size = self.training, 64
        self.eval()
        maps = self(torch.zeros(1, 3, size, size))
        self.train(training)
        return tuple(one.shape[1] for one in maps), tuple(size // one.shape[2] for one in maps)
