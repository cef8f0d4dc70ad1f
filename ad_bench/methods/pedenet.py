"""PEDENet: embeddings of patches whose mixture of Gaussians is learnt with them; unlikely patches stand out.

Paper: Zhang, Wang and Kuo, PEDENet: Image Anomaly Localization via Patch Embedding and Density Estimation,
Pattern Recognition Letters 2022, arXiv:2110.15525. No code by the authors, and this follows the paper's
abstract, which says that
  - a deep encoder turns local patches into low-dimensional embeddings (PE),
  - a network predicts to which cluster an embedding belongs, as in a Gaussian mixture, and what the sum over
    the clusters says of a patch is a loss (DE),
  - a multi-layer perceptron tells from two neighbours' embeddings where they lie to each other (LP).
Ours is the rest:
  1. Patches of 32 and 64 pixels and their encoders are those of Patch SVDD (arXiv:2006.16067), as are the
     eight directions of neighbours and their disturbed colours. LP sees the difference of two embeddings.
  2. The loss of DE is that of DAGMM (Zong et al., ICLR 2018): the mean energy, -log of the likelihood of an
     embedding in the mixture of its own batch, and a penalty on small variances, without which all collapses.
     It is on the variances along the coordinates, and leaves embeddings that lie close to one line.
  3. Embeddings are short, so that a batch suffices for the covariances.
  4. At test the mixture is that of all patches of the training images. A patch scores by its energy, a pixel
     by the mean of the patches that cover it, both sizes added; an image by its worst pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts import windows
from ad_bench.parts.bank import Bank
from ad_bench.parts.exact import exact_products
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.patchwise import Relation
from ad_bench.parts.pool import Pool

SIDE = 32  # pixels of the smallest patch, which the encoder's kernels leave one cell of


class Mixture(NamedTuple):
    """Weights (K,), means (K, D) and covariances (K, D, D) of K Gaussians."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


class Encoder(nn.Module):
    """Patches of 32 pixels -> D numbers within 1; those of 64 by their four quarters."""

    def __init__(self, widths: Sequence[int], joining: int, dimensions: int):
        super().__init__()
        if len(widths) != 7:
            raise UsageError(f"widths are those of 7 convolutions, which lead 32 pixels to one; got {widths}")
        layers: list[nn.Module] = []
        for number, (inside, outside) in enumerate(pairwise([3, *widths, dimensions])):
            layers += [nn.Conv2d(inside, outside, 3, stride=1 if number else 2), nn.LeakyReLU(0.1)]
        self.small = nn.Sequential(*layers[:-1], nn.Tanh())
        self.quarters = nn.Conv2d(dimensions, joining, 2)
        self.large = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(joining, dimensions, 1), nn.Tanh())

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 3, size, size), size 32 or 64 -> (N, D)."""
        if patches.shape[2] == SIDE:
            return cast(Tensor, self.small(patches)).flatten(1)
        parts = windows.grid(patches, SIDE, SIDE).flatten(0, 2)
        cells = cast(Tensor, self.small(parts)).view(len(patches), 2, 2, -1).permute(0, 3, 1, 2)
        return cast(Tensor, self.large(self.quarters(cells))).flatten(1)

    def slid(self, images: Tensor, sizes: Sequence[int], strides: Sequence[int]) -> list[Tensor]:
        """(N, 3, H, W) -> for each size (N, rows, cols, D) of its patches, its stride apart (even)."""
        cells, found = self.small(images), []  # of the patches of 32 pixels, every second pixel
        for size, stride in zip(sizes, strides, strict=True):
            level = cells
            if size != SIDE:
                quarters = F.conv2d(cells, self.quarters.weight, self.quarters.bias, dilation=SIDE // 2)
                level = self.large(quarters)
            found.append(level[:, :, :: stride // 2, :: stride // 2].permute(0, 2, 3, 1))
        return found


class Density(nn.Module):
    """Of patches of one size: their clusters, how they are distributed, where neighbours lie."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, dimensions: int, hidden: int, clusters: int, relation: Relation):
        super().__init__()
        self.memberships = nn.Sequential(
            nn.Linear(dimensions, hidden), nn.Tanh(), nn.Linear(hidden, clusters), nn.Softmax(1)
        )
        self.relation = relation
        self.register_buffer("weights", torch.full((clusters,), 1 / clusters))
        self.register_buffer("means", torch.zeros(clusters, dimensions))
        self.register_buffer("covariances", torch.eye(dimensions).repeat(clusters, 1, 1))

    def keep(self, mixture: Mixture) -> None:
        """Let this be the mixture that patches are scored by."""
        for own, new in zip((self.weights, self.means, self.covariances), mixture, strict=True):
            own.copy_(new)

    def kept(self) -> Mixture:
        """The mixture that patches are scored by."""
        return Mixture(self.weights, self.means, self.covariances)


class PEDENet(Method):
    """Mixtures of `clusters` Gaussians in `dimensions`, for patches of each of `sizes`.

    energy, spread: weights of the two terms of DE beside the directions' cross-entropy. eps: added to the
    variances. An epoch has each image `repeats` times, with a patch and its neighbour of every size.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int],
        joining: int,
        dimensions: int,
        classifier: Sequence[int],
        hidden: int,
        clusters: int,
        noise: float,
        energy: float,
        spread: float,
        eps: float,
        repeats: int,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if not sizes or set(sizes) - {SIDE, 2 * SIDE} or len(strides) != len(sizes):
            raise UsageError(f"sizes are 32 or 64, with a stride each; got {list(sizes)}, {list(strides)}")
        if any(stride < 2 or stride % 2 for stride in strides):
            raise UsageError(
                f"the encoder looks at every second pixel: strides are even; got {list(strides)}"
            )
        if not eps > 0 or clusters < 1:
            raise UsageError(f"eps is above 0 and clusters at least 1; got {eps} and {clusters}")
        super().__init__()
        self.encoder = Encoder(widths, joining, dimensions)
        self.densities = nn.ModuleList(
            Density(dimensions, hidden, clusters, Relation(dimensions, classifier, 8, False)) for _ in sizes
        )
        self.mean = Bank()  # (3, H, W), of the training images
        self.sizes, self.strides, self.noise = sizes, strides, noise
        self.energy, self.spread, self.eps = energy, spread, eps
        self.repeats, self.epochs, self.batch_size, self.optimizer = repeats, epochs, batch_size, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train encoder, densities and relations together, then estimate the mixtures of all patches."""
        pool, generator = Pool(train), run.generator("patches")
        self.mean.points = pool.mean()
        steps = self.optimizer(list(self.parameters()))
        for _ in run.epochs(self.epochs, {"optimizer": steps}, ready=lambda: self.measure(train)):
            for index in pool.order(self.repeats, self.batch_size, generator):
                steps.zero_grad(set_to_none=True)
                run.loss(self.loss(pool.images(index), generator)).backward()
                steps.step()
        self.measure(train)

    def predict(self, inputs: Inputs) -> Prediction:
        """Energies spread over the pixels of their patches, both sizes added."""
        shape, maps = (inputs.images.shape[2], inputs.images.shape[3]), []
        levels = self.encoder.slid(inputs.images - self.mean.points, self.sizes, self.strides)
        each = zip(levels, self.each(), self.sizes, self.strides, strict=True)
        for vectors, density, size, stride in each:
            found = energies(vectors.flatten(0, 2), density.kept(), self.eps).view(vectors.shape[:3])
            maps.append(windows.spread(found, size, stride, shape))
        added = torch.stack(maps).sum(0)
        return Prediction(worst_pixel(added), added)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of images (B, 3, H, W), a patch and a neighbour of each size: the sum over the sizes."""
        images, terms = images - self.mean.points, []
        count, shape = len(images), (images.shape[2], images.shape[3])
        for density, size in zip(self.each(), self.sizes, strict=True):
            one, other, label = windows.neighbours(generator, count, size, shape, 8)
            pair = [
                windows.disturbed(windows.cut(images, at, size), self.noise, generator) for at in (one, other)
            ]
            vectors = self.encoder(torch.cat(pair))
            terms.append(F.cross_entropy(density.relation(*vectors.chunk(2)), label.to(images.device)))
            mixture = mixed([(vectors, density.memberships(vectors))])
            terms.append(self.energy * energies(vectors, mixture, self.eps).mean())
            variances = mixture.covariances.diagonal(dim1=1, dim2=2) + self.eps
            terms.append(self.spread * (1 / variances).sum())
        return torch.stack(terms).sum()

    @torch.no_grad()
    def measure(self, train: TrainSet) -> None:
        """Keep the mixtures of all patches of the training images."""
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.sizes]
        for batch in train.batches():
            levels = self.encoder.slid(batch.images - self.mean.points, self.sizes, self.strides)
            for parts, vectors, density in zip(found, levels, self.each(), strict=True):
                rows = vectors.flatten(0, 2)
                parts.append((rows, density.memberships(rows)))
        for density, parts in zip(self.each(), found, strict=True):
            density.keep(mixed(parts))

    def each(self) -> list[Density]:
        """The sizes' densities."""
        return [cast(Density, density) for density in self.densities]


def mixed(parts: Sequence[tuple[Tensor, Tensor]]) -> Mixture:
    """The mixture of rows (N, D) with their memberships (N, K), given in parts; in double precision."""
    rows, shares = (torch.cat(column).double() for column in zip(*parts, strict=True))
    total = shares.sum(0).clamp(min=1e-12)
    means = shares.T @ rows / total[:, None]
    covariances = []
    for share, mean, amount in zip(shares.T, means, total, strict=True):
        offset = rows - mean
        covariances.append((share[:, None] * offset).T @ offset / amount)
    return Mixture(total / len(rows), means, torch.stack(covariances))


def energies(rows: Tensor, mixture: Mixture, eps: float) -> Tensor:
    """(N, D) -> (N,): -log sum_k weight_k N(row; mean_k, covariance_k + eps I), in double precision."""
    weights, means, covariances = (values.double() for values in mixture)
    dim = rows.shape[1]
    factor = torch.linalg.cholesky(
        covariances + eps * torch.eye(dim, device=rows.device, dtype=torch.float64)
    )
    offset = rows.double()[None] - means[:, None]  # (K, N, D)
    with exact_products(rows.device):
        white = torch.linalg.solve_triangular(factor, offset.mT, upper=False)
    logs = factor.diagonal(dim1=1, dim2=2).log().sum(1) + dim / 2 * math.log(2 * math.pi)
    likely = weights.log()[:, None] - logs[:, None] - white.square().sum(1) / 2
    return -likely.logsumexp(0).to(rows.dtype)
