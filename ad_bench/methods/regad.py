"""RegAD: learns to register images of any one category, and compares new ones with a registered few.

Paper: Huang et al., Registration based Few-Shot Anomaly Detection, ECCV 2022, arXiv:2207.07361.
Reference: MediaBrain-SJTU/RegAD at 5e2c1f8, MIT.
Trained on other categories (protocol=leave_one_out); each image is compared with as many as the support has.
The support's augmentation to 22 times its size belongs to the method: protocol.augment stays empty.
Deviations from the reference:
  1. The published figures are those of the best test epoch, over the authors' ten fixed supports; ours are
     the last epoch's (the best one stands beside it), over supports that the seeds draw.
  2. The support's copies are rounded to bytes.
  3. Where the file of weights holds folded batch norms they stay frozen; the record says so.
  4. Of a category with one single training image, that image is compared with itself; the reference hangs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.augmentation import augmented
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.gaussian import PositionGaussian
from ad_bench.parts.maps import upsample_and_blur, worst_pixel
from ad_bench.parts.pool import Pool
from ad_bench.parts.siamese import head
from ad_bench.parts.similarity import cosine_distance
from ad_bench.parts.spatial_transformer import SpatialTransformer, align, brought_back


class RegAD(Method):
    """A spatial transformer after every stage of the backbone; Siamese heads on the last, to train with."""

    def __init__(
        self,
        backbone: Backbone,
        grids: list[int],
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        eps: float,
        sigma: float,
    ):
        if len(grids) != len(backbone.layers):
            raise UsageError(
                f"grids has one number for each of the {len(backbone.layers)} layers; got {grids}"
            )
        super().__init__()
        self.features = Finetuned(backbone)
        pairs = zip(backbone.channels, grids, strict=True)
        self.transformers = nn.ModuleList(SpatialTransformer(channels, grid) for channels, grid in pairs)
        self.encoder, self.predictor = head(backbone.channels[-1], 3), head(backbone.channels[-1], 2)
        self.epochs, self.batch_size, self.optimizer, self.sigma = epochs, batch_size, optimizer, sigma
        self.gaussian = PositionGaussian(eps)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Learn to register on the other categories (Sec. 3.2), then register the support (Sec. 3.3)."""
        support = train.support
        if support is None or not len(support):
            raise UsageError("RegAD compares with a support and got none: use protocol=leave_one_out")
        pool, draws = Pool(train), run.generator("draws")
        optimizer = self.optimizer(list(self.parameters()))
        first = [group["lr"] for group in optimizer.param_groups]
        run.note(batch_norm="frozen, folded in the file of weights" if self.features.folded else "trained")
        state = {"optimizer": optimizer}
        for epoch in run.epochs(self.epochs, state, ready=lambda: self.register_support(support)):
            share = (1 + math.cos(math.pi * (epoch + 1) / self.epochs)) / 2
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                group["lr"] = rate * share
            for queries, others in self.comparisons(pool, len(support), draws):
                optimizer.zero_grad(set_to_none=True)
                run.loss(self.loss(pool.images(queries), pool.images(others))).backward()
                optimizer.step()
        self.register_support(support)

    def predict(self, inputs: Inputs) -> Prediction:
        """Mahalanobis distance from the registered support at every position; an image is as its worst."""
        features = self.embed(inputs.images)
        distance = self.gaussian.mahalanobis(features.flatten(2).transpose(1, 2))
        maps = upsample_and_blur(distance.reshape(-1, *features.shape[-2:]), inputs.size, self.sigma)
        return Prediction(worst_pixel(maps), maps)

    def comparisons(self, pool: Pool, shots: int, draws: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in batches of one category each: queries (B,), for each `shots` others (B * shots,)."""
        batches = []
        for index in pool.by_category().values():
            count = len(index)
            for places in torch.randperm(count, generator=draws).split(self.batch_size):
                steps = torch.randint(1, max(count, 2), (len(places), shots), generator=draws)
                batches.append((index[places], index[(places[:, None] + steps) % count].flatten()))
        for number in torch.randperm(len(batches), generator=draws).tolist():
            yield batches[number]

    def loss(self, queries: Tensor, others: Tensor) -> Tensor:
        """Images (B, 3, H, W) and (B * shots, 3, H, W) -> how badly they register, from -1 to 1 (Eq. 2-4)."""
        query = self.transformed(queries)[0]
        support = self.transformed(others)[0].unflatten(0, (len(queries), -1)).mean(1)
        z1, z2 = self.encoder(query), self.encoder(support)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return (cosine_distance(p1, z2.detach()) + cosine_distance(p2, z1.detach())).mean() / 2 - 1

    @torch.no_grad()
    def register_support(self, support: TrainSet) -> None:
        """Estimate a Gaussian at every position from the support and its 21 copies (Sec. 3.3)."""
        training = self.training
        self.eval()

        def features() -> Iterator[Tensor]:
            for batch in support.batches():
                for image in batch.images:
                    picture = (image * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
                    copies = torch.from_numpy(np.stack(augmented(picture, ["regad"])))
                    given = copies.permute(0, 3, 1, 2).to(image.device).float().div(255)
                    yield self.embed(given).flatten(2).transpose(1, 2)

        self.gaussian.fit(features())
        self.train(training)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w): all levels, the deeper ones replicated to the first's grid."""
        first, *deeper = self.transformed(images)[1]
        levels = [first] + [F.interpolate(level, size=first.shape[-2:], mode="nearest") for level in deeper]
        return torch.cat(levels, 1)

    def transformed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last level (B, C, h, w) as it was transformed, and all of them brought back to their places.

        Images are seen as they are, in [0, 1]: the reference does not normalise them.
        """
        levels, thetas = align(self.features.stages, self.transformers, images)
        return levels[-1], [brought_back(level, thetas[: i + 1]) for i, level in enumerate(levels)]
