"""Training images in memory, for methods that draw them in other ways than in passes over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ad_bench.contract import TrainSet


class Pool:
    """All images of a training set, as bytes: a quarter of their floats, and nothing lost.

    (What a TrainSet gives are the bytes of decoded images over 255.)
    """

    def __init__(self, train: TrainSet):
        self.pixels = torch.empty(len(train), 3, *train.size, dtype=torch.uint8)  # (N, 3, H, W)
        self.device = torch.device("cpu")
        self.category: tuple[str, ...] = ()  # length N
        labels, filled = [], 0
        for batch in train.batches():
            count = len(batch.images)
            self.pixels[filled : filled + count] = (batch.images * 255).round().to("cpu", torch.uint8)
            self.device = batch.images.device
            self.category += batch.category
            labels.append(torch.zeros(count) if batch.labels is None else batch.labels.cpu())
            filled += count
        if filled == 0 or filled != len(train):
            raise ValueError(f"the training set says {len(train)} images and gave {filled}")
        self.labels = torch.cat(labels).long()  # (N,), 0 where none are known

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: Tensor) -> Tensor:
        """(B,) -> (B, 3, H, W) in [0, 1], on the run's device."""
        return self.pixels[index].to(self.device).float().div_(255)

    def mean(self) -> Tensor:
        """(3, H, W), the mean image, summed in double precision; on the run's device."""
        total = sum(image.double() for image in self.pixels)
        return torch.as_tensor(total / len(self) / 255).float().to(self.device)

    def order(self, repeats: int, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Indices in batches: every image `repeats` times, in random order."""
        drawn = torch.randperm(len(self) * repeats, generator=generator)
        return (drawn % len(self)).split(batch_size)

    def by_category(self) -> dict[str, Tensor]:
        """The indices of each category's images, categories in name order."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.category):
            found.setdefault(name, []).append(index)
        return {name: torch.tensor(found[name]) for name in sorted(found)}


class Cycle:
    """The given indices in random order, over and over, each round drawn anew; part of a checkpoint."""

    def __init__(self, index: Tensor, generator: torch.Generator):
        if len(index) == 0:
            raise ValueError("nothing to draw from")
        self.index, self.generator = index, generator
        self.left = index.new_empty(0)

    def take(self, count: int) -> Tensor:
        """The next `count` of them."""
        while len(self.left) < count:
            order = torch.randperm(len(self.index), generator=self.generator)
            self.left = torch.cat([self.left, self.index[order]])
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def state_dict(self) -> dict[str, Any]:
        """What is to be kept; the generator is the run's."""
        return {"left": self.left}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Take it up again."""
        self.left = state_dict["left"].cpu()
