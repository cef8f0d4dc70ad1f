"""SoftPatch: PatchCore that throws away training patches which stand apart, and trusts the others by degrees.

Paper: Jiang et al., SoftPatch: Unsupervised Anomaly Detection with Noisy Data, NeurIPS 2022,
arXiv:2403.14233.
Reference: TencentYoutuResearch/AnomalyDetection-SoftPatch at f8dc3e0, Apache-2.0 by its README.
This is the paper's main variant, whose noise discriminator is the local outlier factor (SoftPatch-LOF).
Deviations from the reference:
  1. Discarded patches are gone before the coreset is chosen. The reference sets their distances to zero only
     after the first pick, so that its first patch may be a discarded one, and draws the starting points, from
     which the first distances are measured, from all patches.
  2. One random projection serves the outlier factor and the coreset; the reference draws one for each.
  3. A chosen patch is never chosen again; the reference may repeat one where all distances left are zero.
  4. The deeper levels are pooled before they are resized, by one convolution: the same up to rounding.
  5. The factor is that of scikit-learn, as in the reference, but batched and on the device of the features.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.coreset import approximate_greedy_coreset, random_projection
from ad_bench.parts.gather import gather
from ad_bench.parts.maps import upsample_and_blur
from ad_bench.parts.neighbors import choose_backend, nearest
from ad_bench.parts.outliers import local_outlier_factor
from ad_bench.parts.patches import pooled_patches


class SoftPatch(Method):
    """Coreset of the patches left when the share `discarded` with the highest outlier factors is gone."""

    def __init__(
        self,
        backbone: nn.Module,
        patch_size: int,
        pretrain_dim: int,
        target_dim: int,
        outlier_neighbors: int,
        discarded: float,
        coreset_ratio: float,
        projection_dim: int | None,
        starts: int,
        sigma: float,
        backend: str,
    ):
        if not 0 <= discarded < 1:
            raise UsageError(f"discarded is a share of the patches, from 0 to below 1; got {discarded}")
        if not 0 < coreset_ratio <= 1:
            raise UsageError(f"coreset_ratio is a share of the patches, in (0, 1]; got {coreset_ratio}")
        if outlier_neighbors < 1 or starts < 1:
            raise UsageError(
                f"outlier_neighbors and starts are at least 1; got {outlier_neighbors} and {starts}"
            )
        choose_backend(backend, "cpu")  # a misspelt or missing one is said now, not after the features
        super().__init__()
        self.backbone, self.patch_size = backbone, patch_size
        self.pretrain_dim, self.target_dim = pretrain_dim, target_dim
        self.outlier_neighbors, self.discarded = outlier_neighbors, discarded
        self.coreset_ratio, self.projection_dim, self.starts = coreset_ratio, projection_dim, starts
        self.sigma, self.backend = sigma, backend
        self.bank, self.factors = Bank(), Bank()  # (M, target_dim) and the outlier factor of each (M,)

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Outlier factors position by position, without the worst patches a coreset of the others."""
        (table,) = gather(train, run, lambda images: [self.embed(images)])
        patches = table.flatten(1, 2)
        rows = patches.flatten(0, 1)
        generator = run.generator("coreset")
        reduced = rows
        if self.projection_dim not in (None, rows.shape[1]):
            reduced = random_projection(rows, cast(int, self.projection_dim), generator)
        positions = reduced.view(*patches.shape[:2], -1).transpose(0, 1)
        factors = local_outlier_factor(positions, self.outlier_neighbors).T.flatten()
        # numpy's: torch.quantile refuses more than 16 million values
        threshold = float(np.quantile(factors.cpu().numpy(), 1 - self.discarded))
        kept = (factors <= threshold).nonzero()[:, 0]
        count = max(1, int(self.coreset_ratio * len(rows)))
        chosen = approximate_greedy_coreset(reduced[kept], count, generator, None, self.starts, run.track)
        chosen = kept[chosen.to(kept.device)]
        self.bank.points, self.factors.points = rows[chosen], factors[chosen]
        run.note(
            patches=len(rows),
            discarded=len(rows) - len(kept),
            threshold=threshold,
            coreset=len(chosen),
            neighbors_backend=choose_backend(self.backend, rows.device),
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """A patch: squared distance to the nearest of the bank, times its factor. An image: its worst."""
        patches = self.embed(inputs.images)
        distance, index = nearest(patches.flatten(0, 2), self.bank.points, 1, self.backend)
        scores = (distance * self.factors.points[index])[:, 0].view(patches.shape[:3])
        return Prediction(scores.amax((1, 2)), upsample_and_blur(scores, inputs.size, self.sigma))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> locally aggregated patch features (B, h, w, target_dim), as PatchCore's."""
        levels = self.backbone(images)
        return pooled_patches(levels, self.patch_size, self.pretrain_dim, self.target_dim)
