"""CutPaste: features that tell images from copies with a pasted patch or scar, and a Gaussian of them.

Paper: Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
arXiv:2104.04015, the 3-way model of whole images. No code by the authors. A public reading, marked [R] here
and in the YAML, is Runinho/pytorch-cutpaste at 10d8bf7, without a licence (run for the fixture, not copied):
network, loss, gradient and image score agree with it; its epochs are single steps, unlike the paper's.
Deviations:
  1. The map is Grad-CAM of the density at the last features, after the paper's figures for whole images. The
     pixel AUROC in its Table 2 is that of another model, trained on patches, which is not here.
  2. The paper's headline image AUROC is that of five networks together; this is one.
  3. Images are moved by up to `shift` before the rest, for the paper says so without a number; [R] does not.
  4. Training images are taken in passes, each once; [R] draws them so too, the paper does not say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from ad_bench.contract import Inputs, Method, Prediction, Run, Stateful, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.chance import whole
from ad_bench.parts.cutpaste import cut_paste, jitter, scar
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.maps import upsample
from ad_bench.parts.shrunk import ShrunkGaussian


class CutPaste(Method):
    """A network with a projection head that is trained and thrown away, and the Gaussian of what it pools."""

    def __init__(
        self,
        backbone: Backbone,
        head: Sequence[int],
        shift: float,
        strength: float,
        area: tuple[float, float],
        aspect: float,
        width: tuple[int, int],
        length: tuple[int, int],
        rotation: float,
        steps: int,
        frozen: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        eps: float,
    ):
        if len(backbone.layers) != 1:
            raise UsageError(f"CutPaste pools one layer, such as [4]; got {list(backbone.layers)}")
        if not 0 <= shift < 0.5 or steps < 1 or eps <= 0:
            raise UsageError(
                f"shift is a share below 0.5, steps at least 1, eps above 0; got {shift}, {steps}, {eps}"
            )
        super().__init__()
        self.features = Finetuned(backbone)
        self.frozen = frozen
        if backbone.weights.source == "random":
            self.features.apply(_draw)  # a backbone's own are the same under every seed
            self.frozen = 0
        widths = [backbone.channels[-1], *head]
        self.classifier = nn.Sequential(*projection(widths), nn.Linear(widths[-1], 3))
        self.gaussian = ShrunkGaussian(eps)
        self.shift, self.strength = shift, strength
        self.area, self.aspect = area, aspect
        self.width, self.length, self.rotation = width, length, rotation
        self.steps, self.batch_size, self.optimizer = steps, batch_size, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Learn to tell normal images from patches and scars, then the density of their features (Sec. 2)."""
        generator = run.generator("pasting")
        optimizer = self.optimizer(list(self.parameters()))
        rate = CosineAnnealingLR(optimizer, self.steps)
        epochs = math.ceil(self.steps / math.ceil(len(train) / self.batch_size))
        state: dict[str, Stateful] = {"optimizer": optimizer, "rate": rate}
        for _ in run.epochs(epochs, state, ready=lambda: self.estimate(train)):
            for batch in train.batches(self.batch_size, shuffle=True):
                if rate.last_epoch == self.steps:
                    break
                self.features.requires_grad_(rate.last_epoch >= self.frozen)
                views = zip(*(self.views(image, generator) for image in batch.images), strict=True)
                optimizer.zero_grad(set_to_none=True)
                run.loss(self.loss([torch.stack(view) for view in views])).backward()
                optimizer.step()
                rate.step()
        self.estimate(train)

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the logarithm of the density, and Grad-CAM of it: what on the features makes it grow."""
        maps = self.features(inputs.images)[-1].detach()
        with torch.enable_grad():
            maps.requires_grad_()
            scores = self.gaussian.squared(pooled(maps)) / 2
            (slope,) = torch.autograd.grad(scores.sum(), maps)
        maps = maps.detach()
        found = (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu()
        return Prediction(scores.detach(), upsample(found, inputs.size))

    def views(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One image, moved and jittered -> that, that with a pasted patch, that with a pasted scar."""
        image = jitter(moved(image, self.shift, generator), self.strength, generator)
        patched, _ = cut_paste(image, generator, self.area, self.aspect, self.strength)
        scarred, _ = scar(image, generator, self.width, self.length, self.rotation, self.strength)
        return image, patched, scarred

    def loss(self, views: Sequence[Tensor]) -> Tensor:
        """Cross entropy of (B, 3, H, W) of each of the three classes."""
        classes = torch.arange(len(views), device=views[0].device).repeat_interleave(len(views[0]))
        return F.cross_entropy(
            self.classifier(self.features(torch.cat(list(views)))[-1].mean((2, 3))), classes
        )

    @torch.no_grad()
    def estimate(self, train: TrainSet) -> None:
        """Fit the Gaussian to the training images as they are."""
        training = self.training
        self.eval()
        self.gaussian.fit(torch.cat([pooled(self.features(one.images)[-1]) for one in train.batches()]))
        self.train(training)


def pooled(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C): the mean over the positions, of length 1."""
    return F.normalize(maps.mean((2, 3)), dim=1)


def moved(image: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """(3, H, W) moved by up to a share of its sides, mirrored into what that leaves empty."""
    height, width = image.shape[1:]
    down, right = int(shift * height), int(shift * width)
    top, left = whole(generator, 0, 2 * down), whole(generator, 0, 2 * right)
    wide = F.pad(image, (right, right, down, down), mode="reflect")
    return wide[:, top : top + height, left : left + width]


def projection(widths: Sequence[int]) -> list[nn.Module]:
    """Linear, batch norm, ReLU, from each width to the next."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.ReLU(inplace=True)]
    return layers


def _draw(layer: nn.Module) -> None:
    """A ResNet's customary start (He et al., ICCV 2015)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.BatchNorm2d):
        layer.reset_parameters()
