"""MemSeg: a U-Net that is shown how an image differs from the most similar one of a few it remembers.

Paper: Yang et al., MemSeg: A semi-supervised method for image surface defect detection using differences and
commonalities, Engineering Applications of Artificial Intelligence 2023, arXiv:2205.00908. No code by the
authors. The public reading, marked [R] here and in the YAML, is TooTouch/MemSeg at 836bd46, MIT: from given
features on, the choice from the memory, map, score, loss and gradients agree with it. Backbone, made defects
and schedule are not compared, and what [R] itself got wrong would not show: hence `fidelity: paper`.
Deviations from [R]:
  1. Stem and stages 1 to 3 are frozen whole, as the paper says of the stages; there the stem is trained and
     batch norms go with the batch in training, so that the memory no longer fits the features.
  2. `deepest: fresh` starts the fourth stage from random weights, where pretrained ones are not at hand.
     Where the file of weights holds folded batch norms, those of a pretrained fourth stage stay frozen.
  3. The product is found by Otsu's threshold on each image; there by one set by hand for each category.
  4. Defects are laid over the cropped image, there before the crop from 288 to 256.
  5. Without a folder of textures (DTD) they are made, where [R] would take the shuffled image alone.
  6. The distortions of the shuffled image are torchvision's or our own (parts/distort.py), there imgaug's.
  7. The focal loss clamps probabilities to [1e-5, 1 - 1e-5]; there the labels are smoothed by as much.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, Stateful, TrainSet
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
from ad_bench.parts.perlin import PerlinMasks
from ad_bench.parts.pool import Pool
from ad_bench.parts.steps import batches_of_steps, warm_cosine
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
        masks: PerlinMasks,
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
        self.deepest = fourth_stage(backbone, deepest)
        self.memory = nn.ModuleList(Bank() for _ in levels)  # their points (N, C, h, w)
        self.fusion, self.decoder = Fusion(levels), Decoder(stem, levels, self.deepest.channels[-1])
        self.remembered, self.textures, self.textured = memory, Textures(textures), textured
        self.distortions, self.grid, self.purity = distortions, grid, purity
        self.masks, self.opacity = masks, opacity
        self.l1, self.gamma, self.worst = l1, gamma, worst
        self.steps, self.batch_size, self.warmup, self.last_rate = steps, batch_size, warmup, last_rate
        self.optimizer = optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Remember some images, then learn to find defects that are laid over every second one."""
        self.remember(train, run)
        run.note(textures=str(self.textures), remembered=len(self.banks()[0]))
        generator = run.generator("anomalies")
        optimizer = self.optimizer([one for one in self.parameters() if one.requires_grad])
        rate = warm_cosine(optimizer, self.steps, self.warmup, self.last_rate)
        state: dict[str, Stateful] = {"optimizer": optimizer, "rate": rate}
        for batch in batches_of_steps(self.steps, train, run, self.batch_size, state):
            images, masks = batch.images.clone(), torch.zeros_like(batch.images[:, 0], dtype=torch.bool)
            for index in range(1, len(images), 2):
                images[index], masks[index] = self.spoil(images[index], generator)
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
        (fourth,) = self.deepest.stages
        return self.decoder(fourth(levels[-1]), [stem, *fused], images.shape[-2:])

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """L1 and focal loss of the mask, weighted."""
        probability = self(images).softmax(1)
        l1 = F.l1_loss(probability[:, 1], masks.float())
        return self.l1 * l1 + (1 - self.l1) * focal(probability, masks, self.gamma)

    @torch.no_grad()
    def remember(self, train: TrainSet, run: Run) -> None:
        """Keep the features of some training images, drawn by the run's seed."""
        pool = Pool(train)
        drawn = torch.randperm(len(pool), generator=run.generator("memory"))[: self.remembered]
        kept = [self.backbone(pool.images(some))[1:] for some in drawn.split(self.batch_size)]
        for bank, level in zip(self.memory, zip(*kept, strict=True), strict=True):
            cast(Bank, bank).points = torch.cat(level)

    def compare(self, levels: list[Tensor]) -> list[Tensor]:
        """Each level (B, C, h, w) -> (B, 2C, h, w): itself, and the squares of what the memory differs by.

        The memory's answer to an image is the one of lowest mean square difference, summed over the levels.
        """
        banks = self.banks()
        distances = [  # image by image: all pairs at once would not fit into memory
            torch.stack([(bank - image).square().mean((1, 2, 3)) for image in level])
            for bank, level in zip(banks, levels, strict=True)
        ]
        answer = torch.stack(distances).sum(0).argmin(1)
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
        mask = self.masks.draw(size, generator).to(image.device) & foreground(image, self.purity)
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


def fourth_stage(backbone: Backbone, start: str) -> Finetuned:
    """The network's next stage, to be trained from its own weights ("pretrained") or others ("fresh")."""
    if start not in ("pretrained", "fresh"):
        raise UsageError(f"deepest is 'pretrained' or 'fresh'; got '{start}'")
    last, path = backbone.layers[-1], backbone.weights.path
    weights = str(path) if path is not None and start == "pretrained" else "random"
    own = Finetuned(Backbone(backbone.name, [last, last + 1], weights))
    own.stages = own.stages[-1:]
    if weights == "random":  # a backbone's own are the same under every seed
        for layer in own.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                layer.reset_parameters()
    return own


def _wide(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
