"""Two pairs of teacher and student: one student imitates its teacher, the other rebuilds another's features.

Yamada and Hotta, arXiv:2111.15376, and Yamada et al., arXiv:2210.07548; neither published code. Known of both
is that each teacher has a student, that the second one rebuilds normal features with attention through which
the teacher's features pass, and that three levels of both pairs are compared. Which layers do it is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.matching import multiplied, unit_distance
from ad_bench.parts.reverse import Block
from ad_bench.parts.selection import Best, Images, hold_out
from ad_bench.parts.student import Student

Optimizers = Callable[[list[nn.Parameter]], Optimizer]


class Rebuilder(nn.Module):
    """An encoder of its own, of the architecture of `pattern`, and a decoder up the levels of a teacher.

    At each level, from the deepest on, a residual block gives the teacher's channels; they are weighed by an
    attention in (0, 1) that is computed from the teacher's features, and a linear layer ends the level.
    """

    def __init__(self, pattern: Backbone, channels: Sequence[int], bottleneck: float | None):
        super().__init__()
        self.encoder = Student(pattern)
        self.attention = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 1),
                nn.Sigmoid(),
            )
            for width in channels
        )
        widths = [pattern.channels[-1], *reversed(channels)]
        self.blocks = nn.ModuleList(
            Block("double" if level else "keep", widths[level], widths[level + 1], bottleneck)
            for level in range(len(channels))
        )
        self.ends = nn.ModuleList(nn.Conv2d(width, width, 1) for width in channels)

    def forward(self, images: Tensor, taught: Sequence[Tensor]) -> list[Tensor]:
        """(B, 3, H, W) and the teacher's levels -> as many of their shapes, the finest first."""
        maps: Tensor = self.encoder(images)[-1]
        levels: list[Tensor] = []
        upwards = (reversed(self.attention), reversed(self.ends), reversed(taught))
        for block, attention, end, known in zip(self.blocks, *upwards, strict=True):
            maps = block(maps) * attention(known)
            levels.insert(0, end(maps))
        return levels


class Pairs(nn.Module):
    """`first` and the student that imitates it, `second` and the student that rebuilds it; teachers stay.

    A share `validation` of the images is held out while the students learn, and chooses their epoch.
    optimizer: of the first student; rebuilding: of the second.
    Raises UsageError for teachers whose levels do not lie side by side, each half as wide as the one before.
    """

    def __init__(
        self,
        first: Backbone,
        second: Backbone,
        bottleneck: float | None,
        validation: float,
        epochs: int,
        batch_size: int,
        optimizer: Optimizers,
        rebuilding: Optimizers,
    ):
        super().__init__()
        halving = all(deep == 2 * fine for fine, deep in itertools.pairwise(second.strides))
        if first.strides != second.strides or not halving:
            raise UsageError(
                f"both teachers give the same levels, each half as wide as the one before: '{first.name}' "
                f"gives strides {list(first.strides)}, '{second.name}' {list(second.strides)}"
            )
        self.first, self.second = first, second
        self.student = Student(first)
        self.rebuilder = Rebuilder(first, second.channels, bottleneck)
        self.validation, self.epochs, self.batch_size = validation, epochs, batch_size
        self.optimizer, self.rebuilding = optimizer, rebuilding

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> of each level (B, h, w) in [0, 4]: distances of the first pair, then the second."""
        with torch.no_grad():
            taught, other = self.first(images), self.second(images)
        pairs = [*zip(taught, self.student(images), strict=True)]
        pairs += zip(other, self.rebuilder(images, other), strict=True)
        return [unit_distance(known, learnt) for known, learnt in pairs]

    def learn(self, train: TrainSet, run: Run) -> None:
        """Train both students; the epoch of the lowest map of held-out images is kept, else the last one."""
        seen, held = hold_out(train, self.validation, run.generator("validation"))
        order, best = run.generator("order"), Best(nn.ModuleList([self.student, self.rebuilder]))
        steps = self.optimizer(list(self.student.parameters()))
        others = self.rebuilding(list(self.rebuilder.parameters()))
        for epoch in run.epochs(self.epochs, {"optimizer": steps, "rebuilding": others, "best": best}):
            self.train()
            for images in seen.batches(self.batch_size, order):
                steps.zero_grad(set_to_none=True)
                others.zero_grad(set_to_none=True)
                run.loss(torch.stack([level.mean() for level in self(images)]).sum()).backward()
                steps.step()
                others.step()
            if len(held):
                best.offer(self.error(held), epoch)
        best.restore()
        if best.epoch >= 0:
            run.note(validation_images=len(held), chosen_epoch=best.epoch + 1)

    @torch.no_grad()
    def error(self, held: Images) -> float:
        """The mean of the held-out images' maps, all levels multiplied."""
        self.eval()
        total = sum(
            float(multiplied(self(images)).mean()) * len(images) for images in held.batches(self.batch_size)
        )
        return total / len(held)
