"""DevNet: a few labelled anomalies are pushed five deviations away from where scores of normal images lie.

Paper: Pang et al., Explainable Deep Few-shot Anomaly Detection with Deviation Networks,
2021, arXiv:2108.00462.
Reference: Choubo/deviation-network-image at 7a13ee6, without a licence (run for the fixture, not copied).
The published pixel AUROC is the mean over the anomalous test images of each image's own. Pixels of all test
images ranked together, as here, are a harder task, for which maps stretched one by one to [0, 1] are no help.
Deviations from the reference:
  1. Random numbers come from the run's seed, the anomalies from the protocol (draw=devnet for its rule).
  2. Images are turned as tensors, not in Pillow: nearest pixels and black corners, as there.
  3. Where the file of weights holds folded batch norms they stay frozen; the record says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as T
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ad_bench.contract import Inputs, Method, Prediction, Run, Stateful, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.chance import uniform
from ad_bench.parts.deviation import deviation_loss, top_mean
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.maps import gaussian_blur
from ad_bench.parts.pool import Cycle, Pool


class DevNet(Method):
    """A network trained from its ImageNet weights, and one score for each position of its last features."""

    def __init__(
        self,
        backbone: Backbone,
        scales: int,
        top: float,
        margin: float,
        references: int,
        turn: float,
        batch_size: int,
        steps: int,
        epochs: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        clip: float,
        ceiling: float | None,
        sigma: float,
    ):
        if scales < 1 or not 0 < top <= 1:
            raise UsageError(
                f"scales is at least 1, top a share of the positions, in (0, 1]; got {scales}, {top}"
            )
        super().__init__()
        self.features = Finetuned(backbone)
        self.head = nn.Conv2d(backbone.channels[-1], 1, kernel_size=1)
        self.scales, self.top, self.margin, self.references, self.turn = scales, top, margin, references, turn
        self.batch_size, self.steps, self.epochs, self.clip = batch_size, steps, epochs, clip
        self.optimizer, self.schedule = optimizer, schedule
        self.ceiling, self.sigma = ceiling, sigma

    def fit(self, train: TrainSet, run: Run) -> None:
        """Batches of which half are anomalies, each drawn many times (Algorithm 1)."""
        pool = Pool(train)
        if not pool.labels.any():
            raise UsageError("DevNet learns from labelled anomalies and got none: use protocol=supervised")
        if pool.labels.all():
            raise UsageError("DevNet learns from normal images too and got none")
        draws = run.generator("draws")
        normal = Cycle((pool.labels == 0).nonzero()[:, 0], draws)
        anomalous = Cycle((pool.labels == 1).nonzero()[:, 0], draws)
        turns, prior = run.generator("turns"), run.generator("prior")
        trained = list(self.parameters())
        optimizer = self.optimizer(trained)
        rate = self.schedule(optimizer)
        state: dict[str, Stateful] = {"optimizer": optimizer, "rate": rate}
        state |= {"normal": normal, "anomalous": anomalous}
        run.note(batch_norm="frozen, folded in the file of weights" if self.features.folded else "trained")
        half = self.batch_size // 2
        for _ in run.epochs(self.epochs, state):
            for _ in range(self.steps):
                drawn = torch.cat([normal.take(half), anomalous.take(self.batch_size - half)])
                images = self.turned(pool.images(drawn), turns)
                reference = torch.randn(self.references, generator=prior).to(images.device)
                labels = pool.labels[drawn].to(images.device)
                loss = deviation_loss(self.score(images), labels, reference, self.margin)
                optimizer.zero_grad(set_to_none=True)
                run.loss(loss).backward()
                nn.utils.clip_grad_norm_(trained, self.clip)
                optimizer.step()
            rate.step()

    def predict(self, inputs: Inputs) -> Prediction:
        """The score, and how much each pixel moves it: the gradient with regard to the image (Sec. 3.5)."""
        with torch.enable_grad():
            images = self.features.normalised(inputs.images.detach()).requires_grad_()
            scores = self.pyramid(images)
            (moved,) = torch.autograd.grad(scores.sum(), images)
        maps = moved.abs().sum(1)
        if self.ceiling is not None:
            maps = torch.stack([stretched(one, self.ceiling) for one in maps])
        return Prediction(scores.detach(), gaussian_blur(maps, self.sigma))

    def score(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,), at least 0."""
        return self.pyramid(self.features.normalised(images))

    def pyramid(self, normalised: Tensor) -> Tensor:
        """The mean over the scales, each half the size of the one before, of the highest positions' mean."""
        height, width = normalised.shape[-2:]
        scores = []
        for scale in range(self.scales):
            size = (height // 2**scale, width // 2**scale)
            level = F.interpolate(normalised, size=size) if scale else normalised
            for stage in self.features.stages:
                level = stage(level)
            scores.append(top_mean(self.head(level).flatten(1).abs(), self.top))
        return torch.stack(scores).mean(0)

    def turned(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Each image turned by up to `turn` degrees either way."""
        if self.turn == 0:
            return images
        return torch.stack([T.rotate(one, uniform(generator, -self.turn, self.turn)) for one in images])


def stretched(one: Tensor, ceiling: float) -> Tensor:
    """(H, W) brought to [0, 1], the share `ceiling` of its pixels below 1; a map of zeros stays as it is."""
    top, bottom = one.flatten().quantile(ceiling), one.min()
    if top <= 0:
        return one
    return cast(Tensor, ((one - bottom) / (top - bottom).clamp(min=1e-30)).clamp(0, 1))
