"""RIAD: every part of an image is painted from its surroundings, and compared with what was there.

Paper: Zavrtanik et al., Reconstruction by inpainting for visual anomaly detection, Pattern Recognition 2021,
doi:10.1016/j.patcog.2020.107706. No code by the authors. `reference` means here: equal to a public reading by
others, marked [R] here and in the YAML, taikiinoue45/RIAD at 36139f9, MIT. Another, [R2], is
plutoyuxie/Reconstruction-by-inpainting-for-visual-anomaly-detection at 7c0aaf9, without a licence.
Deviations from [R]:
  1. All normal images train for all epochs; there and in [R2] 20 epochs without a better loss on held-out
     images end the training.
  2. The learning rate falls once, as in [R2]; there it stays.
  3. Which cells are hidden together in a test image is drawn once in the fit, the same for all of them; there
     anew for every batch, so that two tests differ.
  4. The maps of the cell sizes are averaged, there summed; no ranking metric sees the difference.
[R2] divides the map of each size by its number of cells, which leaves little but the largest, and compares
grey images after a median filter: neither is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.chance import whole
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize
from ad_bench.parts.similarity import multi_scale_gradient_similarity, ssim
from ad_bench.parts.unet import convolved


class RIAD(Method):
    """A U-Net that paints what is hidden: one of `sets` sets of cells at a time, of several sizes."""

    def __init__(
        self,
        base: int,
        cells: Sequence[int],
        sets: int,
        scales: int,
        window: int,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
    ):
        if not cells or min(cells) < 1 or not 2 <= sets <= 255:
            raise UsageError(f"cells are sides in pixels, from 1, sets 2 to 255; got {list(cells)}, {sets}")
        if window % 2 == 0:
            raise UsageError(f"the window of the mean filter is an odd number of pixels; got {window}")
        super().__init__()
        self.painter = Painter(base)
        self.hidden = (
            Bank()
        )  # (cell sizes, H, W) uint8: with which of the sets a pixel of a test image is hidden
        self.cells, self.sets, self.scales, self.window = tuple(cells), sets, scales, window
        self.epochs, self.batch_size = epochs, batch_size
        self.optimizer, self.schedule = optimizer, schedule

    def fit(self, train: TrainSet, run: Run) -> None:
        """Paint normal images, the cells of each batch of a drawn size (Sec. 3.1)."""
        if train.size[0] % Painter.stride or train.size[1] % Painter.stride:
            raise UsageError(
                f"RIAD's network halves images four times and takes sides in multiples of {Painter.stride}; "
                f"got {train.size[0]}x{train.size[1]}: set method.input={{size: [256, 256]}}"
            )
        tests = run.generator("hidden in tests")
        hidden = [split(train.size, cell, self.sets, tests) for cell in self.cells]
        self.hidden.points = torch.stack(hidden).to(run.device)
        generator = run.generator("hidden")

        def loss(batch: Batch) -> Tensor:
            cell = self.cells[whole(generator, 0, len(self.cells) - 1)]
            return self.loss(batch.images, split(train.size, cell, self.sets, generator))

        optimize(
            loss,
            self.parameters(),
            train,
            run,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            schedule=self.schedule,
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """How unlike the gradients are, the mean over cell sizes, smoothed; its worst pixel (Sec. 3.3)."""
        images = 2 * inputs.images - 1
        alike = [self.alike(images, self.painted(images, hidden)) for hidden in self.hidden.points]
        unlike = 1 - torch.stack(alike).mean((0, 2))
        maps = F.avg_pool2d(unlike[:, None], self.window, stride=1, padding=self.window // 2)[:, 0]
        return Prediction(worst_pixel(maps), maps)

    def loss(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Painted as the image in square, in gradients and in structure, all weights 1 (Sec. 3.2)."""
        images = 2 * images - 1
        painted = self.painted(images, hidden)
        unlike = F.mse_loss(painted, images) + 1 - self.alike(images, painted).mean()
        return unlike + 1 - ssim(images, painted).mean()  # of a range of 1, though it is 2: [R] and [R2]

    def alike(self, one: Tensor, other: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> the same shape."""
        return multi_scale_gradient_similarity(one, other, self.scales)

    def painted(self, images: Tensor, hidden: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the same, no pixel of which its painter has seen (Eq. 1).

        hidden: (H, W), the set of cells that a pixel is hidden with; one pass for each set.
        """
        result = torch.zeros_like(images)
        for number in range(self.sets):
            these = (hidden == number).to(images)
            result = result + these * self.painter(images * (1 - these))
        return result


def split(size: tuple[int, int], cell: int, sets: int, generator: torch.Generator) -> Tensor:
    """(H, W) uint8: the set of each cell of `cell` pixels a side, dealt out evenly and at random."""
    rows, columns = (-(-side // cell) for side in size)
    grid = (torch.randperm(rows * columns, generator=generator) % sets).to(torch.uint8).view(rows, columns)
    return grid.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[: size[0], : size[1]].contiguous()


class Painter(nn.Module):
    """U-Net of [R]: halved by convolutions 4x4, doubled by transposed ones, joined at every size."""

    stride = 16

    def __init__(self, base: int):
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]
        self.down = nn.ModuleList([convolved(3, base, base)])
        self.down.extend(Halved(one, two) for one, two in pairwise(widths))
        self.up = nn.ModuleList(
            Joined(deep, wide) for deep, wide in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(base, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape in (-1, 1)."""
        levels = [images]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        maps = levels.pop()
        for layer, level in zip(self.up, reversed(levels[1:]), strict=True):
            maps = layer(maps, level)
        return self.last(maps).tanh()


class Halved(nn.Sequential):
    """(B, inside, 2h, 2w) -> (B, outside, h, w)."""

    def __init__(self, inside: int, outside: int):
        first = nn.Conv2d(inside, outside, 4, stride=2, padding=1)
        super().__init__(first, nn.BatchNorm2d(outside), nn.ReLU(inplace=True), convolved(outside, outside))


class Joined(nn.Module):
    """(B, inside, h, w) and (B, outside, 2h, 2w) -> the latter shape."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.doubled = nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1)
        self.convolved = convolved(2 * outside, outside, outside)

    def forward(self, deep: Tensor, level: Tensor) -> Tensor:
        """The deeper maps doubled, beside the encoder's of that size."""
        return self.convolved(torch.cat([self.doubled(deep), level], 1))
