"""AST: a convolutional student imitates a normalising flow; where the two differ is the defect.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt, Asymmetric Student-Teacher Networks for Industrial Anomaly
Detection, WACV 2023, arXiv:2210.07829; for images without depth.
Reference: marco-rudolph/AST at 8c243ad, MIT, with use_3D_dataset = False.
Deviations from the reference:
  1. The last incomplete batch of a pass counts; there it is dropped.
  2. Features are those of efficientnet_pytorch 0.6.3, as csflow.py says.
  3. An image scores as the mean of its map or its worst pixel, as `score` says: the reference prints both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.extracted import Extracted
from ad_bench.parts.glow import GlowFlow
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.positions import sine_positions
from ad_bench.parts.scales import check_scales

SCORES = ("mean", "max")


class AST(Method):
    """A flow with one step for each of `kernels`, and a student of `blocks` residual blocks.

    Both are told the positions of the cells, in `positions` dimensions.
    """

    def __init__(
        self,
        backbone: Backbone,
        kernels: Sequence[int],
        teacher_hidden: int,
        clamp: float,
        positions: int,
        student_hidden: int,
        blocks: int,
        score: str,
        teacher_epochs: int,
        student_epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise UsageError(f"kernels are odd widths of convolutions, such as [3, 5]; got {list(kernels)}")
        if score not in SCORES:
            raise UsageError(f"score is one of {', '.join(SCORES)}; got {score!r}")
        sine_positions(positions, 1, 1)  # an impossible number of dimensions is said now
        super().__init__()
        self.backbone, self.positions, self.score = backbone, positions, score
        self.teacher_epochs, self.student_epochs = teacher_epochs, student_epochs
        self.recipe = {"batch_size": batch_size, "optimizer": optimizer}
        channels = check_scales(backbone, 1)
        subnets = [partial(Subnet, teacher_hidden, kernel) for kernel in kernels]
        self.teacher = GlowFlow(channels, subnets, clamp, positions)
        self.student = nn.Sequential(
            nn.Conv2d(channels + positions, student_hidden, 3, padding=1),
            nn.LeakyReLU(),
            *(Residual(student_hidden) for _ in range(blocks)),
            nn.Conv2d(student_hidden, channels, 3, padding=1),
        )

    def fit(self, train: TrainSet, run: Run) -> None:
        """First the flow learns the likelihood of normal features, then the student what the flow says."""
        features = Extracted(train, run, self.backbone)
        for loss, learner, epochs in (
            (self.teacher_loss, self.teacher, self.teacher_epochs),
            (self.student_loss, self.student, self.student_epochs),
        ):
            optimize(loss, learner.parameters(), features, run, epochs=epochs, **self.recipe)  # type: ignore[arg-type]

    def teacher_loss(self, batch: Sequence[Tensor]) -> Tensor:
        """Minus the mean log-likelihood of a position, up to a constant."""
        (z,), (log_det,) = self.teacher(batch, self.told(batch[0]))
        return (0.5 * z.square().sum(1) - log_det).mean()

    def student_loss(self, batch: Sequence[Tensor]) -> Tensor:
        """The mean distance of the student from the teacher."""
        return self.distance(batch[0]).mean()

    def predict(self, inputs: Inputs) -> Prediction:
        """The distance at every position, bicubic in between; an image scores as its mean or its largest."""
        distance = self.distance(self.backbone(inputs.images)[0])
        maps = F.interpolate(distance[:, None], size=inputs.size, mode="bicubic", align_corners=False)[:, 0]
        return Prediction(distance.mean((1, 2)) if self.score == "mean" else worst_pixel(maps), maps)

    def distance(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w): the mean square over the channels of teacher minus student."""
        told = self.told(features)
        with torch.no_grad():
            (taught,), _ = self.teacher([features], told)
        return (taught - self.student(torch.cat([told, features], 1))).square().mean(1)

    def told(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, positions, h, w): where each cell lies."""
        codes = sine_positions(self.positions, *features.shape[-2:]).to(features)
        return codes.expand(len(features), -1, -1, -1)


class Subnet(nn.Module):
    """Two convolutions, times a number that is learnt and 0 at first; beyond the border as at the border."""

    def __init__(self, hidden: int, kernel: int, channels_in: int, channels_out: int):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2, padding_mode="replicate")
        self.gain = nn.Parameter(torch.zeros(1))
        self.first, self.second = conv(channels_in, hidden), conv(hidden, channels_out)

    def forward(self, told: Tensor) -> Tensor:
        """(B, channels_in, h, w) -> (B, channels_out, h, w)."""
        return self.gain * self.second(F.relu(self.first(told)))


class Residual(nn.Module):
    """Two convolutions with batch norm and LeakyReLU, added to what comes in."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        y = F.leaky_relu(self.norms[0](self.first(x)))
        return x + F.leaky_relu(self.norms[1](self.second(y)))
