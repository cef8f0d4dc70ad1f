"""PatchCore: a coreset of normal patch features, scored by the distance to the nearest one.

Paper: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, arXiv:2106.08265.
Reference: amazon-science/patchcore-inspection at fcaa92f, Apache-2.0.
Deviations from the reference:
  1. The deeper levels are pooled before they are resized, not after, and both poolings are one convolution:
     all of it is linear, so the result is the same up to rounding, at less work.
  2. A chosen patch is never chosen again; the reference may repeat one where all distances left are zero.
  3. Random numbers (projection, starting points) come from the run's seed through torch, not through numpy.
  4. With `reweight` the image score is that of the paper (Eq. 7), which the released scorer does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.coreset import approximate_greedy_coreset
from ad_bench.parts.gather import gather
from ad_bench.parts.maps import upsample_and_blur
from ad_bench.parts.neighbors import choose_backend, nearest
from ad_bench.parts.patches import pooled_patches


class PatchCore(Method):
    """Memory bank of locally aggregated mid-level features, thinned to `coreset_ratio` of the patches."""

    def __init__(
        self,
        backbone: nn.Module,
        patch_size: int,
        pretrain_dim: int,
        target_dim: int,
        coreset_ratio: float,
        projection_dim: int | None,
        starts: int,
        neighbors: int,
        reweight: int | None,
        sigma: float,
        backend: str,
    ):
        if not 0 < coreset_ratio <= 1:
            raise UsageError(f"coreset_ratio is a share of the patches, in (0, 1]; got {coreset_ratio}")
        if neighbors < 1 or starts < 1:
            raise UsageError(f"neighbors and starts are at least 1; got {neighbors} and {starts}")
        if reweight is not None and reweight < 2:
            raise UsageError(f"reweight is null or a number of neighbours, at least 2; got {reweight}")
        choose_backend(backend, "cpu")  # a misspelt or missing one is said now, not after the features
        super().__init__()
        self.backbone, self.patch_size = backbone, patch_size
        self.pretrain_dim, self.target_dim = pretrain_dim, target_dim
        self.coreset_ratio, self.projection_dim, self.starts = coreset_ratio, projection_dim, starts
        self.neighbors, self.reweight, self.sigma, self.backend = neighbors, reweight, sigma, backend
        self.bank = Bank()

    @torch.no_grad()
    def fit(self, train: TrainSet, run: Run) -> None:
        """Keep a greedy coreset of all normal patches (Alg. 1)."""
        (table,) = gather(train, run, lambda images: [self.embed(images)])
        patches = table.flatten(0, 2)
        count = max(1, int(self.coreset_ratio * len(patches)))
        chosen = approximate_greedy_coreset(
            patches, count, run.generator("coreset"), self.projection_dim, self.starts, run.track
        )
        self.bank.points = patches[chosen.to(patches.device)]
        run.note(
            patches=len(patches),
            coreset=count,
            neighbors_backend=choose_backend(self.backend, patches.device),
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """Score a patch by its squared distance to the bank, an image by its worst patch."""
        patches = self.embed(inputs.images)
        distance, index = nearest(patches.flatten(0, 2), self.bank.points, self.neighbors, self.backend)
        scores = distance.mean(1).view(patches.shape[:3])
        worst = scores.flatten(1).max(1)
        image_scores = worst.values
        if self.reweight is not None:
            row = worst.indices + torch.arange(len(scores), device=scores.device) * scores[0].numel()
            image_scores = self._reweighted(patches.flatten(0, 2)[row], index[row, 0])
        return Prediction(image_scores, upsample_and_blur(scores, inputs.size, self.sigma))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> locally aggregated patch features (B, h, w, target_dim), h and w of level 1."""
        levels = self.backbone(images)
        return pooled_patches(levels, self.patch_size, self.pretrain_dim, self.target_dim)

    def _reweighted(self, patches: Tensor, index: Tensor) -> Tensor:
        """Eq. 7: the distance d* of the worst patch, weighed by how much farther m*'s neighbours are.

        s = (1 - exp(d*) / sum of exp(|patch - m|) over the `reweight` m nearest to m*, itself included) d*.
        """
        assert self.reweight is not None
        bank = self.bank.points
        _, around = nearest(bank[index], bank, self.reweight, self.backend)
        distances = (patches[:, None] - bank[around]).square().sum(2).sqrt()
        own = (patches - bank[index]).square().sum(1).sqrt()
        return (1 - torch.exp(own - distances.logsumexp(1))) * own
