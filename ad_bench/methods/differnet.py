"""DifferNet: a normalising flow over an image's average features; copies turned about all sides are scored.

Paper: Rudolph, Wandt, Rosenhahn, Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing
Flows, WACV 2021, arXiv:2008.12577.
Reference: marco-rudolph/differnet at 9bdf026, MIT.
Deviations from the reference:
  1. Test copies are turned by even steps, as its evaluate.py and its maps do; its training script draws them
     at random, so that a score is another one each time.
  2. Gradients are turned back by bilinear interpolation, with cubic splines there; a constant factor of the
     map is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.chance import uniform
from ad_bench.parts.glow import GlowFlow
from ad_bench.parts.maps import gaussian_blur
from ad_bench.parts.optimize import optimize
from ad_bench.parts.scales import at_scales, check_scales


class DifferNet(Method):
    """A flow of `steps` two-sided couplings over the pooled features of the image at `scales` sizes."""

    def __init__(
        self,
        backbone: Backbone,
        scales: int,
        steps: int,
        hidden: int,
        clamp: float,
        train_copies: int,
        test_copies: int,
        sigma: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if min(train_copies, test_copies) < 1:
            raise UsageError(
                f"train_copies and test_copies are at least 1; got {train_copies}, {test_copies}"
            )
        super().__init__()
        self.backbone, self.scales = backbone, scales
        self.train_copies, self.test_copies, self.sigma = train_copies, test_copies, sigma
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}

        def subnet(channels_in: int, channels_out: int) -> nn.Module:
            layers: list[nn.Module] = []
            for width in (channels_in, hidden, hidden):
                layers += [nn.Linear(width, hidden), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(hidden, channels_out))

        self.flow = GlowFlow(scales * check_scales(backbone, scales), [subnet] * steps, clamp)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Raise the likelihood of normal images, turned at random (Eq. 4)."""
        angles = run.generator("rotation")

        def turned(images: Tensor) -> Tensor:
            """Each image as often as `train_copies` says; black in the corners."""
            return torch.cat(
                [
                    rotate(image, uniform(angles, -180, 180))[None]
                    for image in images
                    for _ in range(self.train_copies)
                ]
            )

        optimize(
            lambda batch: self.losses(turned(batch.images))[0].mean(),
            self.parameters(),
            train,
            run,
            **self.recipe,  # type: ignore[arg-type]
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """The mean square of z over all copies, and where the copies' gradients are strong (Sec. 3.3)."""
        scores, maps = [], []
        for copy in range(self.test_copies):
            degrees = 360 * copy / self.test_copies
            with torch.enable_grad():
                copies = rotate(inputs.images, degrees).requires_grad_()
                losses, z = self.losses(copies)
                (slope,) = torch.autograd.grad(losses.sum(), copies)
            scores.append(z.detach().square().mean(1))
            slope = slope * self.backbone.std  # of the normalised image
            back = rotate(slope, -degrees, InterpolationMode.BILINEAR)
            maps.append(
                gaussian_blur(back.flatten(0, 1), self.sigma).unflatten(0, slope.shape[:2]).abs().mean(1)
            )
        return Prediction(torch.stack(scores).mean(0), torch.stack(maps).mean(0).square())

    def losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> minus the log-likelihood by dimension, up to a constant (B,), and z (B, d)."""
        pooled = [level.mean((2, 3)) for level in at_scales(self.backbone, images, self.scales)]
        (z,), (log_det,) = self.flow([torch.cat(pooled, 1)])
        return (0.5 * z.square().sum(1) - log_det) / z.shape[1], z
