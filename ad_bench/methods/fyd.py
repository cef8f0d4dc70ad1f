"""FYD: images and their features are aligned before a Gaussian is estimated at every position.

Paper: Zheng et al., Focus Your Distribution: Coarse-to-Fine Non-Contrastive Learning for Anomaly Detection
and Localization, ICME 2022, arXiv:2110.04538. No code by the authors, and the paper was not at hand: its
abstract and others' notes say that a spatial transformer aligns the images, trained by the distance between
the aligned images of a batch; that one after every stage aligns the features, without a loss of its own; that
a non-contrastive loss then draws the features of all images together, position by position; and that the
aligned features make a distribution. Ours is the rest:
  1. Transformers, heads and schedule are RegAD's (arXiv:2207.07361), of the same design: they turn and
     stretch, the heads see the last level, the backbone is trained on with small steps.
  2. The distribution is PaDiM's: random channels of all levels. Finer levels are taken along by the later
     transformers, so that a position means the same on all levels; the map is brought back to the image.
  3. The distance of two images is the mean over their pixels of the length of the difference, after the
     backbone's normalisation; it weighs as much as the other loss. All pairs of a batch count.
  4. Categories that the data set calls textures are left as they lie: there is nothing to align. Where
     objects are trained with them, all are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.channels import count_by_level, draw_channels, join_channels
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.siamese import head, unlikeness
from ad_bench.parts.spatial_transformer import SpatialTransformer, align, brought_back, warp


class FYD(Method):
    """A transformer of the image and one after every stage of the backbone; Siamese heads to train with.

    textures: categories that are not aligned. grids: cells that each transformer looks at, the image's first.
    coarse: weight of the distance between aligned images. The rest is PaDiM's.
    """

    picked: Tensor
    still: Tensor  # whether the trained categories are textures

    def __init__(
        self,
        backbone: Backbone,
        textures: Sequence[str],
        grids: Sequence[int],
        coarse: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        dimensions: int,
        dimension_seed: int,
        eps: float,
        sigma: float,
    ):
        if len(grids) != 1 + len(backbone.layers):
            raise UsageError(
                f"grids has one number for the image and one for each of the {len(backbone.layers)} layers; "
                f"got {list(grids)}"
            )
        super().__init__()
        self.features, self.textures, self.coarse = Finetuned(backbone), set(textures), coarse
        pairs = zip([3, *backbone.channels], grids, strict=True)
        self.transformers = nn.ModuleList(SpatialTransformer(channels, grid) for channels, grid in pairs)
        self.encoder, self.predictor = head(backbone.channels[-1], 3), head(backbone.channels[-1], 2)
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}
        self.schedule = partial(CosineAnnealingLR, T_max=epochs)
        self.gaussian, self.sigma = PositionGaussian(eps), sigma
        self.register_buffer("picked", draw_channels(backbone, dimensions, dimension_seed))
        self.counts = count_by_level(self.picked, backbone.channels)
        self.register_buffer("still", torch.tensor(False))

    def fit(self, train: TrainSet, run: Run) -> None:
        """Align and draw together, then estimate mean and covariance at every aligned position."""
        names = {name for batch in train.batches() for name in batch.category}
        self.still.fill_(bool(names) and names <= self.textures)
        run.note(aligned=not self.still)
        rest = {"schedule": self.schedule, "ready": lambda: self.estimate(train.batches())}
        optimize(self.loss, self.parameters(), train, run, **self.recipe, **rest)  # type: ignore[arg-type]
        self.estimate(run.track(train.batches(), text="features"))

    def predict(self, inputs: Inputs) -> Prediction:
        """Mahalanobis distance at every position, brought back and smoothed; an image is as its worst."""
        features, thetas = self.embed(inputs.images)
        maps = brought_back(self.gaussian.distance_maps(features)[:, None], thetas)[:, 0]
        maps = upsample_and_blur(maps, inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, batch: Batch) -> Tensor:
        """How far the aligned images lie apart, and how unlike the features of all their positions are."""
        images, *levels = self.aligned(batch.images)[0]
        z = self.encoder(levels[-1])
        fine = unlikeness(self.predictor(z), z)
        return fine if self.still else fine + self.coarse * apart(images)

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """The Gaussians of the aligned training images."""
        training = self.training
        self.eval()
        self.gaussian.fit_maps(self.embed(batch.images)[0] for batch in batches)
        self.train(training)

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> aligned features (B, dimensions, h, w), and the (B, 2, 3) that aligned them."""
        (_, *levels), thetas = self.aligned(images)
        taken = []
        for number, level in enumerate(levels, start=2):
            for theta in thetas[number:]:
                level = warp(level, theta)
            taken.append(level)
        return join_channels(taken, self.picked, self.counts, "repeat"), thetas

    def aligned(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, 3, H, W) -> image and levels, each after its transformer; each (B, 2, 3), none for textures."""
        if self.still:
            return [images, *self.features(images)], []
        return align([self.features.normalised, *self.features.stages], self.transformers, images)


def apart(images: Tensor) -> Tensor:
    """(B, C, H, W) -> mean length of the difference at a pixel, over all pairs of images; 0 for one alone."""
    count, pixels = len(images), images.flatten(2).permute(2, 0, 1)
    exact = "donot_use_mm_for_euclid_dist"  # its gradient at equal pixels is 0, not NaN
    return torch.cdist(pixels, pixels, compute_mode=exact).sum((1, 2)).mean() / max(count * (count - 1), 1)
