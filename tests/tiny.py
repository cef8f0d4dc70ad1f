"""Small structured images and a training set of them, for tests of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ad_bench.contract import Batch


class TensorTrainSet:
    """A TrainSet over images (N, 3, H, W) in memory."""

    def __init__(
        self, images: Tensor, labels: Tensor | None = None, masks: Tensor | None = None, batch_size: int = 4
    ):
        self.images, self.labels, self.masks, self.batch_size = images, labels, masks, batch_size
        self.size = (images.shape[2], images.shape[3])
        self.passes = 0
        self.support: TensorTrainSet | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        order = torch.arange(len(self))
        if shuffle:
            self.passes += 1
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.passes))
        for index in order.split(batch_size or self.batch_size) if len(self) else ():
            images = self.images[index]
            yield Batch(
                torch.stack([augment(image) for image in images]) if augment else images,
                ("",) * len(index),
                None if self.labels is None else self.labels[index],
                None if self.masks is None else self.masks[index],
            )


def textures(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """(count, 3, size, size) in [0, 1]: one woven pattern, a little shifted and lit differently each time."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    images = []
    for _ in range(count):
        shift, light = torch.rand(2, generator=generator) * torch.tensor([1.5, 0.05])
        weave = torch.sin((rows + shift) * 0.7) * torch.cos((columns - shift) * 0.4)
        image = 0.45 + light + 0.15 * torch.stack([weave, weave.roll(2, 0), 0.5 * weave])
        images.append(image + 0.02 * torch.randn(3, size, size, generator=generator))
    return torch.stack(images).clamp(0, 1)


def planted(images: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    """The images with a bright scratched square each, and where it is: (B, H, W) bool."""
    generator = torch.Generator().manual_seed(seed)
    images, masks = images.clone(), torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    side = images.shape[2] // 5
    for image, mask in zip(images, masks, strict=True):
        top, left = torch.randint(side, images.shape[2] - 2 * side, (2,), generator=generator).tolist()
        square = torch.rand(1, side, side, generator=generator).round()
        image[:, top : top + side, left : left + side] = (
            torch.tensor([0.95, 0.9, 0.1])[:, None, None] * square
        )
        mask[top : top + side, left : left + side] = True
    return images, masks
