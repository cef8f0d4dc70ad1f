"""CFLOW-AD: a normalising flow over the feature of one position, told where the position lies.

Paper: Gudovskiy, Ishizaka, Kozuka, CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
Conditional Normalizing Flows, WACV 2022, arXiv:2107.12571.
Reference: gudovskiy/cflow-ad at b2ebf9e, BSD-3-Clause, with FrEIA at cc5cf5e.
Deviations from the reference:
  1. A level's likelihoods are divided by their largest over the training images, not over the whole test set:
     a score must not depend on the other test images. The constant weighs the levels against each other.
  2. The map is minus the sum of likelihoods; the constant (largest sum of the test set) is left out.
  3. The last incomplete batch of a pass counts, and a level of fewer positions than a fiber is one fiber.
  4. While one level is trained the others rest. So they do in the authors' code under today's torch; under
     theirs, 1.8, zero_grad left zeros behind, and Adam's momentum moved them on.
  5. One input size, 256, for all categories; the authors take 512 for nine of MVTec AD, 128 for transistor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.transforms.v2.functional import rotate

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.base import Base
from ad_bench.parts.flow import Flow
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.positions import sine_positions

ROWS = 4096  # positions that are scored at a time; no result depends on it


class CFlow(Method):
    """One conditional flow of `steps` couplings for each level; `condition` dimensions say the position.

    With a learnt `base` and an `Alternating` optimiser it is CFLOW-AD with AltUB (arXiv:2210.14913).
    """

    peaks: Tensor

    def __init__(
        self,
        backbone: Backbone,
        padding: str,
        steps: int,
        clamp: float,
        base: str,
        condition: int,
        rotation: float,
        meta_epochs: int,
        sub_epochs: int,
        batch_size: int,
        fiber: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        warmup: int,
        warmup_from: float,
        decay_to: float,
    ):
        if min(fiber, sub_epochs, batch_size) < 1:
            raise UsageError(
                f"fiber, sub_epochs and batch_size are at least 1; got {fiber}, {sub_epochs}, {batch_size}"
            )
        super().__init__()
        self.backbone, self.condition = backbone, condition
        _pad(backbone, padding)
        sine_positions(condition, 1, 1)  # an impossible number of dimensions is said now
        self.rotation, self.fiber = rotation, fiber
        self.meta_epochs, self.sub_epochs, self.batch_size = meta_epochs, sub_epochs, batch_size
        self.optimizer, self.warmup = optimizer, warmup
        self.warmup_from, self.decay_to = warmup_from, decay_to
        self.flows = nn.ModuleList(
            Flow(count, [_subnet] * steps, clamp, "soft", condition) for count in backbone.channels
        )
        self.bases = nn.ModuleList(Base(count, base) for count in backbone.channels)
        self.register_buffer("peaks", torch.zeros(len(backbone.channels)))

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of normal features at their positions, a fiber of them at a time (Sec. 4)."""
        optimizer = self.optimizer([one for one in self.parameters() if one.requires_grad])
        rates = [group["lr"] for group in optimizer.param_groups]
        order, angles = run.generator("positions"), run.generator("rotation")
        turned = partial(_turned, self.rotation, angles) if self.rotation else None
        passes, count = self.sub_epochs, math.ceil(len(train) / self.batch_size)
        for epoch in run.epochs(self.meta_epochs, {"optimizer": optimizer}, lambda: self.find_peaks(train)):
            for part in range(passes):
                batches = train.batches(self.batch_size, shuffle=True, augment=turned)
                for step, batch in enumerate(batches):
                    share = self.rate(epoch + (part + step / count) / passes)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * share
                    self._train_on(batch.images, optimizer, order, run)
        self.find_peaks(train)

    def _train_on(self, images: Tensor, optimizer: Optimizer, order: torch.Generator, run: Run) -> None:
        """One step for every whole fiber of shuffled positions, level after level."""
        with torch.no_grad():
            levels = self.backbone(images)
        for flow, base, level in zip(self.flows, self.bases, levels, strict=True):
            rows, places = self._positions(level)
            shuffled = torch.randperm(len(rows), generator=order).to(rows.device)
            for start in range(0, max(1, len(rows) // self.fiber) * self.fiber, self.fiber):
                chosen = shuffled[start : start + self.fiber]
                likelihood = log_likelihood(flow, base, rows[chosen], places[chosen])
                optimizer.zero_grad(set_to_none=True)
                run.loss(-F.logsigmoid(likelihood).mean()).backward()
                optimizer.step()

    def rate(self, progress: float) -> float:
        """Share of the learning rate after `progress` meta epochs: a cosine that steps once in each.

        Up to `warmup` it rises evenly from `warmup_from` to where the cosine then is.
        """

        def cosine(epoch: int) -> float:
            return (
                self.decay_to + (1 - self.decay_to) * (1 + math.cos(math.pi * epoch / self.meta_epochs)) / 2
            )

        if progress >= self.warmup:
            return cosine(int(progress))
        return self.warmup_from + progress / self.warmup * (cosine(self.warmup) - self.warmup_from)

    @torch.no_grad()
    def find_peaks(self, train: TrainSet) -> None:
        """Remember each level's largest log-likelihood over the training images."""
        peaks = [
            torch.stack([level.max() for level in self.likelihoods(batch.images)])
            for batch in train.batches()
        ]
        self.peaks.copy_(torch.stack(peaks).amax(0))

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the sum over levels of each position's likelihood, 1 where training was surest (Sec. 4.3)."""
        maps = []
        for level, peak in zip(self.likelihoods(inputs.images), self.peaks, strict=True):
            likelihood = torch.exp(level - peak)[:, None]
            maps.append(F.interpolate(likelihood, inputs.size, mode="bilinear", align_corners=True)[:, 0])
        anomaly = -torch.stack(maps).sum(0)
        return Prediction(worst_pixel(anomaly), anomaly)

    def likelihoods(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> for each level the log-likelihood per dimension of every position, (B, h, w)."""
        found = []
        for flow, base, level in zip(self.flows, self.bases, self.backbone(images), strict=True):
            rows, places = self._positions(level)
            parts = zip(rows.split(ROWS), places.split(ROWS), strict=True)
            scored = torch.cat([log_likelihood(flow, base, *part) for part in parts])
            found.append(scored.view(len(level), *level.shape[2:]))
        return found

    def _positions(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> features (B h w, C) and the codes of their positions (B h w, condition)."""
        codes = sine_positions(self.condition, level.shape[2], level.shape[3]).to(level)
        places = codes.flatten(1).T.repeat(len(level), 1)
        return level.flatten(2).transpose(1, 2).flatten(0, 1), places


def log_likelihood(flow: nn.Module, base: nn.Module, rows: Tensor, places: Tensor) -> Tensor:
    """(N, C) features at (N, condition) positions -> (N,): log p / C (Eq. 6)."""
    z, log_det = flow(rows, places)
    return (log_det - base(z).sum(1)) / rows.shape[1] - 0.5 * math.log(2 * math.pi)


def _subnet(channels_in: int, channels_out: int) -> nn.Module:
    hidden = 2 * channels_in
    return nn.Sequential(nn.Linear(channels_in, hidden), nn.ReLU(), nn.Linear(hidden, channels_out))


def _pad(backbone: nn.Module, padding: str) -> None:
    """Let the convolutions of the backbone see `reflect`ed pixels beyond the border, or `zeros`."""
    if padding not in ("reflect", "zeros"):
        raise UsageError(f"padding is reflect or zeros; got {padding!r}")
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = padding  # type: ignore[assignment]


def _turned(degrees: float, angles: torch.Generator, image: Tensor) -> Tensor:
    """An image (3, H, W) turned by a random angle of at most so many degrees; black in the corners."""
    return rotate(image, float(torch.empty(1).uniform_(-degrees, degrees, generator=angles)))
