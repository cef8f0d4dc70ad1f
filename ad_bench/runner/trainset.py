"""The training images of one fit, as the image store holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ad_bench.contract import Batch, TrainSet
from ad_bench.datasets.masks import read_mask
from ad_bench.geometry import Geometry
from ad_bench.samples import ANOMALOUS, Boxes, Sample

Copies = Callable[[np.ndarray], Sequence[np.ndarray]]  # one image (H, W, 3) -> it and others of its shape


def to_device(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1]; the bytes travel, the floats are made there.

    The store's order of bytes stays: channels-last memory, in which convolutions take less time.
    """
    # A copy, as the store is memory-mapped and read-only; locked to its place a GPU fetches it by itself.
    copied = torch.empty(images.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    copied.numpy()[:] = images
    return copied.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


class StoredTrainSet:
    """A TrainSet over decoded images (N, H, W, 3); labels and masks only where `needs` names them.

    With `copies` each image is followed by its changed copies, which count as images of their own.
    """

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
        support: TrainSet | None = None,
        copies: Copies | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"loader.batch_size is a number of images, at least 1; got {batch_size}")
        if copies is not None:
            samples, images, sizes = _with_copies(samples, images, sizes, copies)
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
            yield Batch(
                images,
                self._categories(chosen),
                self._labels(chosen),
                self._masks(chosen),
                self._masked(chosen),
            )

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
            mask = read_mask(sample.mask if _pixels_known(sample) else None, original, sample.name)
            masks.append(self.geometry.forward_mask(mask, "nearest", "nearest", None))
        return torch.from_numpy(np.stack(masks)).to(self.device)

    def _masked(self, chosen: np.ndarray) -> Tensor | None:
        if "masks" not in self.needs:
            return None
        known = [_pixels_known(self.samples[i]) for i in chosen]
        return torch.tensor(known, dtype=torch.bool, device=self.device)


def _pixels_known(sample: Sample) -> bool:
    """Whether a mask says which pixels are defective; boxes do where the data set counts them as filled."""
    if sample.label != ANOMALOUS:
        return True
    return sample.mask is not None and not (isinstance(sample.mask, Boxes) and not sample.mask.filled)


def _with_copies(
    samples: Sequence[Sample], images: np.ndarray, sizes: np.ndarray, copies: Copies
) -> tuple[Sequence[Sample], np.ndarray, np.ndarray]:
    defect = next((sample.name for sample in samples if sample.label == ANOMALOUS), None)
    if defect is not None:
        raise ValueError(f"{defect} has a defect: its copies would need a mask that is changed as they are")
    made = [copies(image) for image in images]
    times = [len(of_one) for of_one in made]
    repeated = [sample for sample, count in zip(samples, times, strict=True) for _ in range(count)]
    return repeated, np.stack([one for of_one in made for one in of_one]), np.repeat(sizes, times, axis=0)
