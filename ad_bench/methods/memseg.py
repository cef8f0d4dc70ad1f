"""MemSeg: a U-Net that is shown how an image differs from the most similar one of a few it remembers.

Paper: Yang et al., MemSeg: A semi-supervised method for image surface defect detection using differences and
commonalities, Engineering Applications of Artificial Intelligence 2023, arXiv:2205.00908. No code by the
authors. The public reading, marked [R] here and in the YAML, is TooTouch/MemSeg at 836bd46, MIT.
Deviations from [R]:
  1. Stem and stages 1 to 3 are frozen whole, as the paper says of the stages; there the stem is trained and
     batch norms go with the batch in training, so that the memory no longer fits the features.
  2. Weights for the fourth stage are not always at hand: `deepest: fresh` starts it from random ones.
  3. The product is found by Otsu's threshold on each image; there by one set by hand for each category.
  4. Defects are laid over the cropped image, there before the crop from 288 to 256.
  5. Without a folder of textures (DTD) they are made, where [R] would take the shuffled image alone.
  6. The distortions of the shuffled image are torchvision's or our own (parts/distort.py), there imgaug's.
  7. The focal loss clamps probabilities to [1e-5, 1 - 1e-5]; there the labels are smoothed by as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.blend import blend, shuffle_blocks
from ad_bench.parts.chance import happens, uniform
from ad_bench.parts.coordinates import CoordinateAttention
from ad_bench.parts.distort import distorted
from ad_bench.parts.finetuned import Finetuned
from ad_bench.parts.foreground import foreground
from ad_bench.parts.losses import focal
from ad_bench.parts.perlin import perlin_mask
from ad_bench.parts.textures import Textures
from ad_bench.parts.unet import Up


class MemSeg(Method):
    """Frozen stem and stages 1 to 3, a memory of their features, and what is trained on top of both."""

    def __init__(
        self,
        backbone: Backbone,
        deepest: str,
        memory: int,
        textures: str | None,
        textured: float,
        distortions: int,
        grid: int,
        purity: float,
        rotation: float,
        octaves: tuple[int, int],
        threshold: float,
        opacity: tuple[float, float],
        l1: float,
        gamma: float,
        worst: int,
        steps: int,
        batch_size: int,
        warmup: float,
        last_rate: float,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if len(backbone.channels) != 4:
            raise UsageError(
                f"MemSeg takes four layers, the stem and three stages; got {list(backbone.layers)}"
            )
        if memory < 1 or steps < 1:
            raise UsageError(f"memory and steps are at least 1; got {memory} and {steps}")
        super().__init__()
        stem, *levels = backbone.channels
        self.backbone = backbone
        self.deepest, channels = fourth_stage(backbone, deepest)
        self.memory = nn.ModuleList(Bank() for _ in levels)  # their points (N, C, h, w)
        self.fusion, self.decoder = Fusion(levels), Decoder(stem, levels, channels)
        self.remembered, self.textures, self.textured = memory, Textures(textures), textured
        self.distortions, self.grid, self.purity = distortions, grid, purity
        self.rotation, self.octaves, self.threshold, self.opacity = rotation, octaves, threshold, opacity
        self.l1, self.gamma, self.worst = l1, gamma, worst
        self.steps, self.batch_size, self.warmup, self.last_rate = steps, batch_size, warmup, last_rate
        self.optimizer = optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Remember some images, then learn to find defects that are laid over every second one."""
        self.remember(train, run)
        run.note(textures=str(self.textures), remembered=len(self.banks()[0]))
        generator = run.generator("anomalies")
        optimizer = self.optimizer([one for one in self.parameters() if one.requires_grad])
        share = self.last_rate / optimizer.defaults["lr"]
        rate = LambdaLR(optimizer, lambda step: warm_cosine(step / self.steps, self.warmup, share))
        epochs = math.ceil(self.steps / math.ceil(len(train) / self.batch_size))
        for _ in run.epochs(epochs, {"optimizer": optimizer, "rate": rate}):
            for batch in train.batches(self.batch_size, shuffle=True):
                if rate.last_epoch == self.steps:
                    break
                made = [self.spoil(image, generator) for image in batch.images[1::2]]
                images = batch.images.clone()
                masks = torch.zeros_like(images[:, 0], dtype=torch.bool)
                for index, (spoilt, mask) in enumerate(made):
                    images[2 * index + 1], masks[2 * index + 1] = spoilt, mask
                optimizer.zero_grad(set_to_none=True)
                run.loss(self.loss(images, masks)).backward()
                optimizer.step()
                rate.step()

    def predict(self, inputs: Inputs) -> Prediction:
        """The probability of a defect at every pixel; an image scores as the mean of its worst pixels."""
        maps = self(inputs.images).softmax(1)[:, 1]
        return Prediction(maps.flatten(1).topk(min(self.worst, maps[0].numel())).values.mean(1), maps)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, 2, H, W) of normal and defect."""
        stem, *levels = self.backbone(images)
        fused = self.fusion(self.compare(levels))
        return self.decoder(self.deepest(levels[-1]), [stem, *fused], images.shape[-2:])

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """L1 and focal loss of the mask, weighted."""
        probability = self(images).softmax(1)
        l1 = F.l1_loss(probability[:, 1], masks.float())
        return self.l1 * l1 + (1 - self.l1) * focal(probability, masks, self.gamma)

    @torch.no_grad()
    def remember(self, train: TrainSet, run: Run) -> None:
        """Keep the features of some training images, drawn by the run's seed."""
        order = torch.randperm(len(train), generator=run.generator("memory"))
        chosen = torch.zeros(len(train), dtype=torch.bool)
        chosen[order[: self.remembered]] = True
        kept: list[list[Tensor]] = []
        seen = 0
        for batch in run.track(train.batches(), text="memory"):
            some = chosen[seen : seen + len(batch.images)]
            seen += len(batch.images)
            if some.any():
                kept.append(self.backbone(batch.images[some.to(batch.images.device)])[1:])
        if not kept:
            raise ValueError(f"the training set says {len(train)} images and gave {seen}")
        for bank, level in zip(self.memory, zip(*kept, strict=True), strict=True):
            cast(Bank, bank).points = torch.cat(level)

    def compare(self, levels: list[Tensor]) -> list[Tensor]:
        """Each level (B, C, h, w) -> (B, 2C, h, w): itself, and the squares of what the memory differs by.

        The memory's answer to an image is the one of lowest mean square difference, summed over the levels.
        """
        banks, nearest = self.banks(), []
        for image in zip(*levels, strict=True):  # one by one: all pairs at once would not fit into memory
            pairs = zip(banks, image, strict=True)
            distances = [(bank - level).square().mean((1, 2, 3)) for bank, level in pairs]
            nearest.append(torch.stack(distances).sum(0).argmin())
        answer = torch.stack(nearest)
        return [
            torch.cat([level, (level - bank[answer]).square()], 1)
            for bank, level in zip(banks, levels, strict=True)
        ]

    def banks(self) -> list[Tensor]:
        """What is remembered of each level, (N, C, h, w)."""
        return [cast(Bank, bank).points for bank in self.memory]

    def spoil(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One image -> itself with a defect laid over the product, and the mask (H, W) of it, maybe empty."""
        size = (image.shape[1], image.shape[2])
        mask = perlin_mask(size, generator, self.octaves, self.rotation, self.threshold).to(image.device)
        mask &= foreground(image, self.purity)
        if happens(generator, self.textured):
            foreign = self.textures.draw(size, generator).to(image.device)
        else:
            foreign = shuffle_blocks(distorted(image, self.distortions, generator), self.grid, generator)
        return blend(image, foreign, mask, uniform(generator, *self.opacity)), mask


class Fusion(nn.Module):
    """Levels with their differences -> the levels fused from deep to shallow, weighed by the differences."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.local = nn.ModuleList(nn.Conv2d(2 * c, 2 * c, 3, padding=1) for c in channels)
        self.attention = nn.ModuleList(CoordinateAttention(2 * c) for c in channels)
        self.halved = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)) for c in channels
        )
        pairs = itertools.pairwise(channels)
        self.down = nn.ModuleList(nn.Conv2d(deep, shallow, 3, padding=1) for shallow, deep in pairs)

    def forward(self, compared: list[Tensor]) -> list[Tensor]:
        """(B, 2C, h, w) of each level -> (B, C, h, w)."""
        layers = zip(self.local, self.attention, self.halved, compared, strict=True)
        maps = [halved(local(level) * attention(level)) for local, attention, halved, level in layers]
        weights = [level[:, level.shape[1] // 2 :].mean(1, keepdim=True) for level in compared]
        for shallow in reversed(range(len(maps) - 1)):
            size = maps[shallow].shape[-2:]
            maps[shallow] = maps[shallow] + self.down[shallow](_wide(maps[shallow + 1], size))
            weights[shallow] = weights[shallow] * _wide(weights[shallow + 1], size)
        return [level * weight for level, weight in zip(maps, weights, strict=True)]


class Decoder(nn.Module):
    """From the fourth stage up to the image, joined at every size by what was fused there."""

    def __init__(self, stem: int, levels: list[int], deepest: int, width: int = 48):
        super().__init__()
        outs = [*reversed(levels), width, width]
        joined = [2 * one for one in outs[:-1]]
        self.up = nn.ModuleList(Up(one, two) for one, two in zip([deepest, *joined], outs, strict=True))
        self.stem = nn.Conv2d(stem, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, maps: Tensor, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """levels: the stem's maps, then the fused ones. -> (B, 2, *size)."""
        stem, *fused = levels
        *ups, final = self.up
        for up, level in zip(ups, [*reversed(fused), self.stem(stem)], strict=True):
            maps = torch.cat([up(maps, level.shape[-2:]), level], 1)
        return self.last(final(maps, size))


def fourth_stage(backbone: Backbone, start: str) -> tuple[nn.Module, int]:
    """A stage to be trained, and its channels: the network's own ("pretrained"), or a "fresh" one."""
    if start == "pretrained":
        last = backbone.layers[-1]
        weights = str(backbone.weights.path or "random")
        own = Finetuned(Backbone(backbone.name, [last, last + 1], weights))
        return own.stages[-1], own.channels[-1]
    if start != "fresh":
        raise UsageError(f"deepest is 'pretrained' or 'fresh'; got '{start}'")
    inside, outside = backbone.channels[-1], 2 * backbone.channels[-1]
    shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside))
    first = BasicBlock(inside, outside, stride=2, downsample=shortcut)
    return nn.Sequential(first, BasicBlock(outside, outside)), outside


def warm_cosine(done: float, warmup: float, last: float) -> float:
    """The rate's share of its peak at `done` of the steps: up from `last` in a line, down as a cosine."""
    if done < warmup:
        return last + (1 - last) * done / warmup
    return last + (1 - last) * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def _wide(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
