"""The training images of one fit, as the image store holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ad_bench.contract import Batch
from ad_bench.datasets.masks import read_mask
from ad_bench.geometry import Geometry
from ad_bench.samples import Sample


def to_device(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1]; the bytes travel, the floats are made there."""
    copied = np.array(images)  # the store is memory-mapped and read-only
    tensor = torch.from_numpy(copied).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class StoredTrainSet:
    """A TrainSet over decoded images (N, H, W, 3); labels and masks only where `needs` names them."""

    def __init__(
        self,
        samples: Sequence[Sample],
        images: np.ndarray,
        sizes: np.ndarray,  # (N, 2) height, width of the originals
        geometry: Geometry,
        device: torch.device,
        batch_size: int,
        seed: int,
        needs: Sequence[str] = (),
        support: StoredTrainSet | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"loader.batch_size is a number of images, at least 1; got {batch_size}")
        self.samples, self.images, self.sizes, self.geometry = samples, images, sizes, geometry
        self.device, self.batch_size, self.seed, self.needs = device, batch_size, seed, tuple(needs)
        self.support = support
        self.passes = 0  # shuffled ones so far: each has its own order, the same in every run
        self.size: tuple[int, int] = (int(images.shape[1]), int(images.shape[2]))

    def __len__(self) -> int:
        return len(self.samples)

    def batches(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        """One pass; see contract.TrainSet."""
        size = self.batch_size if batch_size is None else batch_size
        order = np.arange(len(self))
        if shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.passes)
            order = torch.randperm(len(self), generator=generator).numpy()
            self.passes += 1
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            images = to_device(self.images[chosen], self.device)
            if augment is not None:
                images = torch.stack([augment(image) for image in images])
            yield Batch(images, self._categories(chosen), self._labels(chosen), self._masks(chosen))

    def _categories(self, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(self.samples[i].category if "category" in self.needs else "" for i in chosen)

    def _labels(self, chosen: np.ndarray) -> Tensor | None:
        if "labels" not in self.needs:
            return None
        return torch.tensor([self.samples[i].label for i in chosen], device=self.device)

    def _masks(self, chosen: np.ndarray) -> Tensor | None:
        if "masks" not in self.needs:
            return None
        masks = []
        for i in chosen:
            sample, original = self.samples[i], (int(self.sizes[i][0]), int(self.sizes[i][1]))
            mask = read_mask(sample.mask, original, sample.name)
            masks.append(self.geometry.forward_mask(mask, "nearest", "nearest", None))
        return torch.from_numpy(np.stack(masks)).to(self.device)
