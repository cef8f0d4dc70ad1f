"""Choosing an epoch by normal images that are held out of the training, as some recipes do. No test image."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ad_bench.contract import TrainSet
from ad_bench.errors import UsageError


class Images:
    """Some of the training images, kept in memory as bytes: a quarter of their floats, and nothing lost.

    (What a TrainSet gives are the bytes of decoded images over 255.)
    """

    def __init__(self, pixels: Tensor, device: torch.device) -> None:
        self.pixels, self.device = pixels, device  # (N, 3, H, W) uint8

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """One pass of (B, 3, H, W) in [0, 1]: in order, or in one that `generator` draws."""
        count = len(self)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        for chosen in order.split(batch_size) if count else ():
            yield self.pixels[chosen].to(self.device).float().div_(255)


def hold_out(train: TrainSet, share: float, generator: torch.Generator) -> tuple[Images, Images]:
    """The images to train with, and a random `share` of all, rounded up, held out of them.

    At least one image is left to train with: of a single image none is held out.
    """
    if not 0 <= share < 1:
        raise UsageError(f"the validation share is 0 or more and below 1; got {share}")
    count = min(math.ceil(share * len(train)), len(train) - 1)
    order = torch.randperm(len(train), generator=generator)
    held = torch.zeros(len(train), dtype=torch.bool)
    held[order[: max(count, 0)]] = True
    pixels, device, filled = torch.empty(0, 3, *train.size, dtype=torch.uint8), torch.device("cpu"), 0
    for batch in train.batches():
        if filled == 0:  # the whole table at once: gathered and joined later it would be held twice
            pixels, device = pixels.new_empty(len(train), *batch.images.shape[1:]), batch.images.device
        pixels[filled : filled + len(batch.images)] = (batch.images * 255).round().cpu()
        filled += len(batch.images)
    if filled == 0 or filled != len(train):
        raise ValueError(f"the training set says {len(train)} images and gave {filled}")
    return Images(pixels[~held], device), Images(pixels[held], device)


class Best:
    """A module's state where an error was lowest, the first of equal ones or the `latest`. Checkpointed."""

    def __init__(self, module: nn.Module, latest: bool = False) -> None:
        self.module, self.latest = module, latest
        self.error, self.epoch = math.inf, -1  # -1: nothing offered yet
        self.state: dict[str, Tensor] = {}

    def offer(self, error: float, epoch: int) -> None:
        """Keep the module's present state if `error` is the lowest so far."""
        if error < self.error or (self.latest and error == self.error):
            self.error, self.epoch = error, epoch
            self.state = copy.deepcopy(self.module.state_dict())

    def restore(self) -> None:
        """Give the module its best state back; as it is where nothing was offered."""
        if self.state:
            self.module.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        """What is to be kept."""
        return {"error": self.error, "epoch": self.epoch, "state": dict(self.state)}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it up again."""
        self.error, self.epoch = float(state_dict["error"]), int(state_dict["epoch"])
        self.state = dict(state_dict["state"])
