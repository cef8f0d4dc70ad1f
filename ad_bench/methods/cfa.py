"""CFA: features adapted so that normal patches gather in small spheres around memorised centres.

Paper: Lee, Lee and Song, CFA: Coupled-hypersphere-based Feature Adaptation for Target-Oriented Anomaly
Localization, IEEE Access 2022, arXiv:2206.04325.
Reference: sungwool/CFA_for_anomaly_localization at 0708086, no licence file.
Deviations from the reference:
  1. Distances come from plain differences to the nearest centres. The reference expands the squares, which
     may leave a value below zero (and NaN in its root).
  2. The centres are the mean over all training images, and the last incomplete batch of an epoch trains
     too; the reference leaves it out of both.
  3. Scores are not squeezed to [0, 1] over the whole test set; no ranking metric sees the difference.
  4. The published figures are the best of 30 test epochs, each metric at its own; ours are of the last epoch.
Not here: what the reference has for EfficientNet-B5 alone (features divided by their channels, twice as many
out), and its training and testing on randomly rotated images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.optimize import optimize


class CFA(Method):
    """Frozen features, a trained 1x1 descriptor that knows its position, and one centre a position.

    attracted, repelled: K nearest centres of a patch, and the J after these (hard negatives). centre_share
    and channel_share are gamma_c and gamma_d: centres and channels are divided by them.
    """

    def __init__(
        self,
        backbone: Backbone,
        centre_share: int,
        channel_share: int,
        attracted: int,
        repelled: int,
        margin: float,
        nu: float,
        radius: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        sigma: float,
    ):
        if centre_share < 1 or channel_share < 1 or attracted < 1 or repelled < 1:
            raise UsageError(
                "centre_share, channel_share, attracted and repelled are at least 1; "
                f"got {centre_share}, {channel_share}, {attracted} and {repelled}"
            )
        super().__init__()
        self.backbone, self.sigma = backbone, sigma
        self.centre_share, self.attracted, self.repelled = centre_share, attracted, repelled
        self.margin, self.nu = margin, nu
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer
        channels = sum(backbone.channels)
        self.descriptor = nn.Conv2d(channels + 2, channels // channel_share, 1)
        self.radius = nn.Parameter(torch.full((1,), radius))
        self.centres = Bank()  # (number, channels)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Memorise centres with the untrained descriptor, then adapt it to them."""
        self.centres.points = self._memorised(train, run)
        run.note(centres=len(self.centres))
        optimize(
            lambda batch: self.loss(self.describe(self.backbone(batch.images)).flatten(0, 2)),
            [*self.descriptor.parameters(), self.radius],
            train,
            run,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """Distance to the nearest centre times how sure that it is the nearest, smoothed."""
        rows = self.describe(self.backbone(inputs.images))
        distance = nearest(rows.flatten(0, 2), self.centres.points, self.attracted)[0].sqrt()
        scores = (F.softmin(distance, 1) * distance)[:, 0].view(rows.shape[:3])
        maps = upsample_and_blur(scores, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def describe(self, levels: list[Tensor]) -> Tensor:
        """Feature maps (B, C, h, w), finest first -> adapted features (B, h, w, D) on the first's grid."""
        first, *deeper = (F.avg_pool2d(level, 3, 1, 1) for level in levels)
        size = cast(tuple[int, int], tuple(first.shape[-2:]))
        resized = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in deeper]
        rows, columns = (torch.linspace(-1, 1, side, device=first.device) for side in size)
        position = torch.stack([rows[:, None].expand(size), columns.expand(size)])
        whole = torch.cat([first, *resized, position.expand(len(first), -1, -1, -1)], 1)
        return cast(Tensor, self.descriptor(whole)).permute(0, 2, 3, 1)

    def loss(self, rows: Tensor) -> Tensor:
        """Of adapted features (N, D): attraction into the nearest spheres, repulsion from the next ones."""
        wanted = self.attracted + self.repelled
        _, index = nearest(rows.detach(), self.centres.points, wanted)
        squared = (rows[:, None] - self.centres.points[index]).square().sum(2)
        inside = self.radius.square()
        attraction = (squared[:, : self.attracted] - inside).clamp(min=0).mean()
        repulsion = (inside - squared[:, self.attracted :] - self.margin).clamp(min=0).mean()
        return (attraction + repulsion) / self.nu

    @torch.no_grad()
    def _memorised(self, train: TrainSet, run: Run) -> Tensor:
        """The mean feature of every position (h * w, D), or k-means centres of these if fewer are wanted."""
        total, seen = torch.zeros(()), 0
        for batch in run.track(train.batches(), text="centres"):
            total = total.to(batch.images) + self.describe(self.backbone(batch.images)).sum(0)
            seen += len(batch.images)
        if seen == 0:
            raise ValueError("no training images: nothing to take centres from")
        means = (total / seen).flatten(0, 1)
        number = len(means) // self.centre_share
        if number < self.attracted + self.repelled:
            raise UsageError(
                f"centre_share={self.centre_share} leaves {number} of {len(means)} centres, fewer than "
                f"attracted + repelled = {self.attracted + self.repelled}: lower it"
            )
        if self.centre_share == 1:
            return means
        from sklearn.cluster import KMeans

        seed = int(torch.randint(2**31, (1,), generator=run.generator("centres")))
        found = KMeans(number, n_init=10, max_iter=3000, random_state=seed).fit(means.cpu().numpy())
        return torch.from_numpy(found.cluster_centers_).to(means)
