"""GCPF: the pixels of all normal features in a few Gaussians, each level on its own.

Paper: Wan et al., Industrial Image Anomaly Localization Based on Gaussian Clustering of Pretrained Feature,
IEEE Transactions on Industrial Electronics 69(6), 2022.
Reference: smiler96/GCPF at 67e2345, no licence file.
Deviations from the reference:
  1. Sums, covariances and their inverses are in double precision.
  2. A cluster with fewer than two rows keeps its Gaussian. There the level falls back to plain k-means.
Release bug, kept with `compat`: the last row of a level counts to the first cluster wherever it lies, because
a slice ends one too early. It is one row of thousands.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import AdbenchError, UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.exact import exact_products
from ad_bench.parts.gather import gather
from ad_bench.parts.gaussian import whiten_
from ad_bench.parts.kmeans import closest, kmeans
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.shrunk import ledoit_wolf

BLOCK = 8192  # rows that are compared with a Gaussian at a time


class GCPF(Method):
    """Hard clustering by the Mahalanobis distance, with shrunk covariances; `clusters` Gaussians a level."""

    def __init__(
        self,
        backbone: Backbone,
        clusters: int,
        rounds: int,
        shift: float,
        eps: float,
        sigma: float,
        compat: bool,
    ):
        if clusters < 1 or rounds < 1:
            raise UsageError(f"clusters and rounds are at least 1; got {clusters} and {rounds}")
        super().__init__()
        self.backbone, self.clusters, self.rounds, self.shift = backbone, clusters, rounds, shift
        self.eps, self.sigma, self.compat = eps, sigma, compat
        self.means = nn.ModuleList(Bank() for _ in backbone.layers)  # (K, C) of each level
        self.whitenings = nn.ModuleList(Bank() for _ in backbone.layers)  # (K, C, C)

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Cluster the normal rows of every level."""
        levels = gather(train, run, self.rows)
        used = []
        for level, mean, whitening in zip(levels, self.means, self.whitenings, strict=True):
            mean.points, whitening.points, rounds = self._clustered(level.flatten(0, 2), run)
            used.append(rounds)
        run.note(rounds=used)

    def predict(self, inputs: Inputs) -> Prediction:
        """Distance to the nearest Gaussian of each level, enlarged, averaged and smoothed."""
        maps = []
        for level, mean, whitening in zip(self.rows(inputs.images), self.means, self.whitenings, strict=True):
            distance = distances(level.flatten(0, 2), cast(Bank, mean).points, cast(Bank, whitening).points)
            maps.append(upsample_and_blur(distance.amin(1).view(level.shape[:3]), inputs.size, self.sigma))
        joined = torch.stack(maps).mean(0)
        return Prediction(worst_pixel(joined), joined)

    def rows(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the levels with their channels last, (B, h, w, C)."""
        return [level.permute(0, 2, 3, 1) for level in self.backbone(images)]

    def _clustered(self, rows: Tensor, run: Run) -> tuple[Tensor, Tensor, int]:
        """Means (K, C), whitenings (K, C, C) of the clusters that rows (N, C) settle in; and the rounds."""
        drawn = torch.randperm(len(rows), generator=run.generator("centres"))[: self.clusters]
        centres = kmeans(rows, rows[drawn.to(rows.device)], self.rounds, self.shift, self._owners)
        mean = centres.double()
        covariance = self.eps * torch.eye(rows.shape[1]).to(mean).repeat(len(mean), 1, 1)
        self._estimate(rows, closest(rows, centres), mean.clone(), covariance)  # the centres stay the means
        done = 0
        for _ in range(self.rounds):
            done += 1
            old_mean, old_covariance = mean.clone(), covariance.clone()
            owner = distances(rows, mean.to(rows), self._whitened(covariance).to(rows)).argmin(1)
            self._estimate(rows, self._stray(owner), mean, covariance)
            # both shifts as the reference measures them: of a mean, and of a row of a covariance
            moved = (mean - old_mean).square().sum(1).sqrt().mean()
            turned = (covariance - old_covariance).square().sum(1).sqrt().mean()
            if moved + turned < self.shift:
                break
        return mean.to(rows), self._whitened(covariance).to(rows), done

    def _estimate(self, rows: Tensor, owner: Tensor, mean: Tensor, covariance: Tensor) -> None:
        """Write the mean and the shrunk covariance of each cluster that has two rows."""
        for cluster in range(len(mean)):
            members = rows[owner == cluster]
            if len(members) > 1:
                mean[cluster], covariance[cluster] = ledoit_wolf(members)
                covariance[cluster].diagonal().add_(self.eps)

    def _whitened(self, covariance: Tensor) -> Tensor:
        whitening = covariance.clone()
        if bool(whiten_(whitening).any()):
            raise AdbenchError(f"a covariance is not positive definite with eps={self.eps}: raise eps")
        return whitening

    def _owners(self, rows: Tensor, centres: Tensor) -> Tensor:
        return self._stray(closest(rows, centres))

    def _stray(self, owner: Tensor) -> Tensor:
        if self.compat:
            owner[-1] = 0
        return owner


def distances(rows: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """(N, C), (K, C), (K, C, C) -> Mahalanobis distances (N, K)."""
    found = rows.new_empty(len(rows), len(mean))
    with exact_products(rows.device):
        for part, place in zip(rows.split(BLOCK), found.split(BLOCK), strict=True):
            for cluster in range(len(mean)):
                offset = (part - mean[cluster]) @ whitening[cluster].T
                place[:, cluster] = offset.square_().sum(1).sqrt_()
    return found
