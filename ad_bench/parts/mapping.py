"""Features of one frozen network mapped to those of another and back, level by level and cell by cell.

Wan et al., Unsupervised Image Anomaly Detection and Segmentation Based on Pre-trained Feature Mapping, IEEE
Transactions on Industrial Informatics 2022. Layers as in smiler96/PFM-and-PEFM-for-Image-Anomaly-Detection-
and-Segmentation at 89268b6.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.positions import sine_positions


class TwoWayMapping(nn.Module):
    """Each way an encoder and a decoder of 1x1 convolutions; the layer between them, linear, serves both."""

    def __init__(self, one: int, other: int, latent: int):
        super().__init__()
        self.encoder = cells(one, one // 2 + latent, 2 * latent)
        self.shared = nn.Conv2d(2 * latent, latent, 1)
        self.decoder = cells(latent, 2 * latent, other // 2 + latent).append(
            nn.Conv2d(other // 2 + latent, other, 1)
        )
        self.encoder_back = cells(other, other // 2 + latent, 2 * latent)
        self.decoder_back = cells(latent, 2 * latent, one // 2 + latent).append(
            nn.Conv2d(one // 2 + latent, one, 1)
        )

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """(B, one, h, w), (B, other, h, w) -> these shapes: each as the other one tells it."""
        there = self.decoder(self.shared(self.encoder(one)))
        return self.decoder_back(self.shared(self.encoder_back(other))), there


def cells(*channels: int) -> nn.Sequential:
    """Convolution 1x1, batch norm, ReLU, from each number of channels to the next."""
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(channels):
        layers += [nn.Conv2d(inside, outside, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class MappedLevels(nn.Module):
    """Two frozen networks, and for each pair of their levels a mapping, which learns; `latent`: its widths.

    With `positions` each mapping's inputs are told where they lie (Wan et al., Position Encoding Enhanced
    Feature Mapping, CASE 2022): `sine_positions` of as many dimensions as channels are added to them.
    Raises UsageError for networks whose levels do not lie side by side.
    """

    def __init__(self, first: Backbone, second: Backbone, latent: Sequence[int], positions: bool):
        super().__init__()
        if first.strides != second.strides:
            raise UsageError(
                f"features are mapped cell by cell: '{first.name}' gives strides {list(first.strides)} for "
                f"layers {list(first.layers)}, '{second.name}' {list(second.strides)} for "
                f"{list(second.layers)}"
            )
        if len(latent) != len(first.channels) or min(latent) < 1:
            raise UsageError(
                f"latent are {len(first.channels)} widths, one for each level; got {list(latent)}"
            )
        if positions and any(width % 4 for width in (*first.channels, *second.channels)):
            raise UsageError(
                f"positions need levels of 4, 8, 12, ... channels; '{first.name}' has "
                f"{list(first.channels)}, '{second.name}' {list(second.channels)}"
            )
        self.first, self.second, self.positions = first, second, positions
        self.mappings = nn.ModuleList(
            TwoWayMapping(*widths) for widths in zip(first.channels, second.channels, latent, strict=True)
        )

    def errors(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) -> of each level both networks' squared errors, (B, C, h, w) of either's channels.

        Features are normalised to length 1 over the channels; what they are mapped to is not.
        """
        with torch.no_grad():
            pairs = zip(self.first(images), self.second(images), strict=True)
            known = [(F.normalize(one, dim=1), F.normalize(other, dim=1)) for one, other in pairs]
        found = []
        for (one, other), mapping in zip(known, self.mappings, strict=True):
            told_one, told_other = mapping(self.placed(one), self.placed(other))
            found.append(((one - told_one).square(), (other - told_other).square()))
        return found

    def placed(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> the same with the codes of the cells added, where there are to be any."""
        if not self.positions:
            return features
        _, channels, height, width = features.shape
        return features + sine_positions(channels, height, width).to(features)

    def losses(self, images: Tensor) -> Tensor:
        """(levels,): the mean squared errors of both ways, added up."""
        return torch.stack([one.mean() + other.mean() for one, other in self.errors(images)])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W): both ways' squared distances, averaged over ways and levels."""
        distances = [
            (one.sum(1, keepdim=True) + other.sum(1, keepdim=True)) / 2 for one, other in self.errors(images)
        ]
        wide = [
            F.interpolate(level, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
            for level in distances
        ]
        return torch.stack(wide).mean(0)

    def groups(self, rates: Sequence[float]) -> list[dict[str, object]]:
        """For an optimiser: the parameters of each level's mapping, with its learning rate."""
        return [
            {"params": list(mapping.parameters()), "lr": rate}
            for mapping, rate in zip(self.mappings, rates, strict=True)
        ]
