"""A contrario: an image is compared with itself; what is too rare in it to be there by chance is anomalous.

Paper: Tailanian, Muse, Pardo, A Multi-Scale A Contrario method for Unsupervised Image Anomaly Detection,
ICMLA 2021, arXiv:2110.02407, and its extension arXiv:2205.11611, whose regions of ResNet features these are.
For textures; no training image is looked at.
Reference: mtailanian/nfa_anomaly_detection at f8a5cbf, AGPL-3.0 (run for the fixture, not copied).
Deviations from the reference:
  1. An image scores as its worst pixel; the reference gives maps only.
  2. Principal components are exact, where the reference leaves the way to scikit-learn.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.nfa import region_log_nfa

NORMS = ("image", "pretrained")


class AContrario(Method):
    """Principal components of a ResNet's first block; a region's sum of squares tells how rare it is.

    norms: whether batch norms take the statistics of the image, as the authors' code, which never calls
    eval(), or those that they were pretrained with.
    """

    def __init__(
        self,
        backbone: Backbone,
        norms: str,
        margin: float,
        components: int,
        grid: int,
        threshold: float,
        independent: float,
    ):
        if norms not in NORMS:
            raise UsageError(f"norms is one of {', '.join(NORMS)}; got {norms!r}")
        if not 0 <= margin < 1 or components < 1 or grid < 1 or not independent > 0:
            raise UsageError(
                "margin is a share below 1, components and grid are at least 1, independent above 0; "
                f"got {margin}, {components}, {grid}, {independent}"
            )
        super().__init__()
        self.backbone, self.margin, self.components = backbone, margin, components
        self.grid, self.threshold, self.independent = grid, threshold, independent
        self.tap = _first_block(backbone)
        for module in backbone.modules() if norms == "image" else ():
            if isinstance(module, nn.BatchNorm2d):  # without them it takes the batch's: an image at a time
                module.running_mean = module.running_var = None

    def fit(self, train: TrainSet, run: Run) -> None:
        """Nothing is learnt."""

    def predict(self, inputs: Inputs) -> Prediction:
        """Minus the logarithm of the smallest number of false alarms of any region that a pixel is in."""
        found = [
            region_log_nfa(
                self.squares(image[None])[0].double().cpu().numpy(), self.threshold, self.independent
            )
            for image in inputs.images
        ]
        maps = -torch.stack([torch.from_numpy(one) for one in found]).to(inputs.images)
        wide = F.interpolate(maps[:, None], size=inputs.size, mode="nearest")[:, 0]
        return Prediction(worst_pixel(maps), wide)

    def squares(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, components, grid, grid): each component's squared deviations from its mean."""
        features = self.features(image)
        rows = features[0].flatten(1).T.double()  # (cells, C)
        centred = rows - rows.mean(0)
        axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : self.components]
        scores = centred @ axes
        deviation = scores.std(0).clamp(min=torch.finfo(scores.dtype).tiny)
        squares = (scores / deviation).square().T.reshape(1, -1, *features.shape[-2:]).to(image)
        return F.interpolate(squares, size=(self.grid, self.grid), mode="bicubic", align_corners=True)

    def features(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, C, H / 4, W / 4): of the image without its mean, mirrored beyond the border."""
        margin = int(self.margin * image.shape[-1])
        wide = F.pad(image - image.mean(), [margin] * 4, mode="reflect")
        seen: list[Tensor] = []
        hook = self.tap.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            self.backbone(wide * self.backbone.std + self.backbone.mean)  # which it takes off again
        finally:
            hook.remove()
        cut = margin // self.backbone.strides[0]
        height, width = seen[0].shape[-2:]
        return seen[0][..., cut : height - cut, cut : width - cut]


def _first_block(backbone: Backbone) -> nn.Module:
    """The last convolution of the first residual block, before its norm."""
    modules = dict(backbone.network.named_modules())
    for name in ("layer1.0.conv3", "layer1.0.conv2"):
        if name in modules:
            return cast(nn.Module, modules[name])
    raise UsageError(
        f"'{backbone.name}' has no layer1 of residual blocks. Take a ResNet, such as resnet50.tv_in1k"
    )
