"""MSPB: patches of three sizes, embedded so that near ones are alike, each scored by its nearest normal one.

Paper: Tsai, Wu, Lai, Multi-Scale Patch-Based Representation Learning for Image Anomaly Detection and
Segmentation, WACV 2022, doi 10.1109/WACV51458.2022.00312.
Reference: Howeng98/MSPBA at 55a3356 (no licence: run for the fixture, not copied).
Deviations from the reference:
  1. The nearest patches are exact; there an approximate graph finds those of the two smaller sizes.
  2. Its epoch 0, which trains nothing, is not counted.
  3. Batch norms, which VGG16 lacks, keep their statistics.
Images score by the worst pixel, by which the reference chooses its epoch; the worst 8x8 window, which it also
computes, is printed there and serves nothing.
Release bugs, kept with `compat`: the distances to the centres of k-means give no gradient, and so have
no effect (they are left out here); none reaches the weights of the classifiers' last layers. Without it
both learn, and the centres, in most epochs stale or spoilt there, are found anew as the YAML says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts import windows
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.bank import Bank
from ad_bench.parts.kmeans import kmeans
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.patchwise import PatchEncoders, Relation
from ad_bench.parts.pool import Pool


class Size(nn.Module):
    """Of patches of one size: a classifier of neighbours, the normal vectors, centres of k-means."""

    def __init__(self, relation: Relation):
        super().__init__()
        self.relation, self.normal, self.centres = relation, Bank(), Bank()


class MSPB(Method):
    """Vectors of patches from the layers of a network, which all sizes share and which is trained on."""

    def __init__(
        self,
        backbone: Backbone,
        sizes: Sequence[int],
        strides: Sequence[int],
        kernels: Sequence[Sequence[int]],
        widths: Sequence[Sequence[int]],
        dimensions: int,
        directions: int,
        classifier: Sequence[int],
        noise: float,
        jitter: int,
        weight: float,
        compat: bool,
        groups: int,
        rounds: int,
        compact_from: int,
        compact_every: int,
        repeats: int,
        epochs: int,
        batch_size: int,
        network_steps: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        backend: str,
    ):
        super().__init__()
        if len(strides) != len(sizes) or compact_every < 1:
            raise UsageError(
                f"strides are as many as sizes, compact_every >= 1; got {strides}, {compact_every}"
            )
        self.encoders = PatchEncoders(backbone, sizes, kernels, widths, dimensions)
        self.known = nn.ModuleList(Size(Relation(dimensions, classifier, directions, compat)) for _ in sizes)
        self.mean = Bank()  # (3, H, W), of the training images
        self.sizes, self.strides, self.directions = sizes, strides, directions
        self.noise, self.jitter, self.weight, self.compat = noise, jitter, weight, compat
        self.groups, self.rounds, self.compact = groups, rounds, (compact_from, compact_every)
        self.repeats, self.epochs, self.batch_size = repeats, epochs, batch_size
        self.network_steps, self.optimizer, self.backend = network_steps, optimizer, backend

    @property
    def of_size(self) -> list[Size]:
        """`known`, with its type."""
        return [cast(Size, one) for one in self.known]

    def fit(self, train: TrainSet, run: Run) -> None:
        """Learn the vectors of patches, then keep those of all normal ones."""
        pool, generator = Pool(train), run.generator("patches")
        self.mean.points = pool.mean()
        others = nn.ModuleList([self.encoders.heads, self.known]).parameters()
        steps = self.optimizer([one for one in others if one.requires_grad])
        network = self.optimizer(list(self.encoders.features.parameters()))
        (first, every), state = self.compact, {"optimizer": steps, "network": network}
        for epoch in run.epochs(self.epochs, state, ready=lambda: self.remember(train)):
            self.eval()  # batch norms keep their statistics
            if not self.compat and epoch >= first and (epoch - first) % every == 0:
                self.gather(pool, generator)
            for index in pool.order(self.repeats, self.batch_size, generator):
                self.zero_grad(set_to_none=True)
                run.loss(self.loss(pool.images(index), generator)).backward()
                steps.step()
                for _ in range(self.network_steps):
                    network.step()
        self.remember(train)

    def predict(self, inputs: Inputs) -> Prediction:
        """Distances to the nearest normal patch, spread over the pixels, added up over the sizes."""
        images, maps = inputs.images - self.mean.points, []
        shape = (images.shape[2], images.shape[3])
        for level, (size, stride) in enumerate(zip(self.sizes, self.strides, strict=True)):
            vectors, known = self.encoders.slid(level, images, stride), self.of_size[level].normal.points
            squared, _ = nearest(vectors.flatten(0, 2), known, backend=self.backend)
            maps.append(windows.spread(squared.sqrt().view(vectors.shape[:3]), size, stride, shape))
        total = torch.stack(maps).sum(0)
        return Prediction(worst_pixel(total), total)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of images (B, 3, H, W), with patches of their own for every term: the sum over the sizes."""
        images, terms = images - self.mean.points, []
        for level, known in enumerate(self.of_size):
            patches, label = self.draw(images, self.sizes[level], generator)
            one, other, start, near, far, free = self.encoders(level, torch.cat(patches)).chunk(6)
            terms.append(F.cross_entropy(known.relation(one, other), label))
            terms.append(self.weight * likeness(start, near, far))
            if len(known.centres):
                terms.append(torch.cdist(free, known.centres.points).square().amin(1).mean())
        return torch.stack(terms).sum()

    def draw(self, images: Tensor, size: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """Six patches of each image; where the second lies, seen from the first, disturbed both.

        Third to fifth: a patch, one a few pixels beside it, one 3/4 of a patch farther off than a neighbour,
        in rows and in columns (down and right where a neighbour would be level). The sixth: any.
        """
        count, shape = len(images), (images.shape[2], images.shape[3])
        one, other, label = windows.neighbours(generator, count, size, shape, self.directions)
        start, free = (windows.places(generator, count, size, shape) for _ in range(2))
        beside = windows.jitters(generator, count, max(1, size // self.jitter))
        away, _ = windows.offsets(generator, count, size, self.directions)
        away += torch.where(away < 0, -1, 1) * (3 * size // 4)
        near, far = (windows.moved(start, offset, size, shape) for offset in (beside, away))
        patches = [windows.cut(images, place, size) for place in (one, other, start, near, far, free)]
        pair = [windows.disturbed(patch, self.noise, generator) for patch in patches[:2]]
        return [*pair, *patches[2:]], label.to(images.device)

    def remember(self, train: TrainSet) -> None:
        """Keep the vectors of all patches of the training images."""
        self.eval()
        for level, (known, stride) in enumerate(zip(self.of_size, self.strides, strict=True)):
            images = (batch.images - self.mean.points for batch in train.batches())
            known.normal.points = torch.cat(
                [self.encoders.slid(level, some, stride).flatten(0, 2) for some in images]
            )

    @torch.no_grad()
    def gather(self, pool: Pool, generator: torch.Generator) -> None:
        """k-means, from the last centres on, over as many random patches as an epoch has."""
        for level, known in enumerate(self.of_size):
            order = pool.order(self.repeats, self.batch_size, generator)
            batches = (pool.images(index) - self.mean.points for index in order)
            free = [self.draw(images, self.sizes[level], generator)[0][5] for images in batches]
            rows = torch.cat([self.encoders(level, patches) for patches in free])
            drawn = torch.randperm(len(rows), generator=generator)[: self.groups]
            start = known.centres.points if len(known.centres) else rows[drawn.to(rows.device)]
            known.centres.points = kmeans(rows, start, self.rounds, 0.0)


def likeness(start: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Vectors (N, D): near ones draw together, by distance and by direction, far ones turn away."""
    distance = torch.linalg.vector_norm(start - near, dim=1)
    return (distance - F.cosine_similarity(start, near) + F.cosine_similarity(start, far)).mean()
