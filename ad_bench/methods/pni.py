"""PNI: PatchCore whose memory counts for a patch only where its neighbours and its position make it likely.

Paper: Bae, Lee and Kim, PNI: Industrial Anomaly Detection using Position and Neighborhood Information, ICCV
2023, arXiv:2211.12634.
Reference: wogur110/PNI_Anomaly_Detection at 958626a, no licence file.
A network tells from the features around a patch which features of a distribution coreset may be there; a
histogram tells which features of the memory occur near a position. The likelihood of a patch is the largest
that a feature so admitted gives it, gamma exp(-gamma distance).
Not here: the network that refines maps to pixels. How it was trained is not published, only its weights; the
paper's figures have it.
Deviations from the reference:
  1. Coresets are chosen in a dense random projection, not in a sparse one, of as many dimensions; among the
     features themselves where these have no more.
  2. Negative logarithms of likelihoods are never computed through the likelihoods, which underflow.
  3. A last training batch of a single patch is left out: its features have no deviation.
Release bugs, kept with `compat`: of a neighbourhood the cell right of the centre is left out, not the centre;
and a memory feature's rank among the distances is taken for its number, so that with the r-th nearest feature
of the distribution coreset the r-th nearest one of the memory is admitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.bank import Bank
from ad_bench.parts.coreset import approximate_greedy_coreset
from ad_bench.parts.exact import exact_products
from ad_bench.parts.gather import gather
from ad_bench.parts.maps import upsample_and_blur
from ad_bench.parts.neighbors import nearest
from ad_bench.parts.patches import pooled_patches
from ad_bench.parts.selection import Best

ROWS = 512  # patches that are scored at a time: bounds the memory for their neighbourhoods


class PNI(Method):
    """`coreset_ratio` of the patches are the memory, the first `distribution` chosen ones the classes.

    Neighbours and position reach `reach` cells far. The network is `depth` linear layers, hidden ones `width`
    wide. A class is admitted above `likely_neighbours` / M of its softmax at `temperature`, a feature of the
    memory of M above `likely_position` / M of the histogram. top: an image scores as the mean of so large a
    share of its map's pixels, the highest; None: as its worst cell.
    """

    def __init__(
        self,
        backbone: nn.Module,
        reach: int,
        patch_size: int,
        pretrain_dim: int,
        target_dim: int,
        coreset_ratio: float,
        distribution: int,
        projection_eps: float,
        depth: int,
        width: int,
        dropout: float,
        validation: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        temperature: float,
        likely_neighbours: float,
        likely_position: float,
        gamma: float,
        top: float | None,
        sigma: float,
        compat: bool,
    ):
        if not 0 < coreset_ratio <= 1 or not 0 <= validation < 1 or not (top is None or 0 < top <= 1):
            raise UsageError(
                "coreset_ratio and top are shares in (0, 1], validation one in [0, 1); "
                f"got {coreset_ratio}, {top} and {validation}"
            )
        if min(distribution, reach, depth, batch_size - 1) < 1 or min(temperature, gamma) <= 0:
            raise UsageError(
                "distribution, reach and depth are at least 1, batch_size 2, temperature and gamma above 0; "
                f"got {distribution}, {reach}, {depth}, {batch_size}, {temperature} and {gamma}"
            )
        super().__init__()
        self.backbone, self.patch_size = backbone, patch_size
        self.pretrain_dim, self.target_dim = pretrain_dim, target_dim
        self.coreset_ratio, self.distribution = coreset_ratio, distribution
        self.projection_eps = projection_eps
        self.reach, self.validation, self.epochs, self.batch_size = reach, validation, epochs, batch_size
        self.optimizer, self.schedule, self.temperature = optimizer, schedule, temperature
        self.likely_neighbours, self.likely_position = likely_neighbours, likely_position
        self.gamma, self.top, self.sigma, self.compat = gamma, top, sigma, compat
        self.cells = around(reach, compat)
        self.network = classifier(len(self.cells) * target_dim, width, depth, distribution, dropout)
        self.memory, self.classes = Bank(), Bank()  # (M, D) and (K, D), of K <= distribution
        self.owner = Bank()  # (M,): the class nearest to each
        self.usual = Bank()  # (h, w, M) bool: by position

    def fit(self, train: TrainSet, run: Run) -> None:
        """Choose both coresets, count what occurs where, and learn what occurs among which neighbours."""
        (table,) = gather(train, run, lambda images: [self.embed(images)])
        inner = self.inner(table)
        rows = inner.flatten(0, 2)
        count, dim = max(1, int(self.coreset_ratio * len(rows))), projected(len(rows), self.projection_eps)
        chosen = approximate_greedy_coreset(
            rows,
            max(count, self.distribution),
            run.generator("coreset"),
            dim if dim < self.target_dim else None,
            1,
            run.track,
        ).to(rows.device)
        self.memory.points, self.classes.points = rows[chosen[:count]], rows[chosen[: self.distribution]]
        self.owner.points = nearest(self.memory.points, self.classes.points)[1][:, 0]
        occurring = nearest(rows, self.memory.points)[1].view(inner.shape[:3])
        share = occurrences(occurring, count, self.reach)
        self.usual.points = (share > self.likely_position / count).permute(1, 2, 0).contiguous()
        run.note(patches=len(rows), coreset=count, classes=len(self.classes))
        self.learn(table, nearest(rows, self.classes.points)[1][:, 0], run)

    def learn(self, table: Tensor, target: Tensor, run: Run) -> None:
        """Train the network on the patches of (N, h, w, D); the best epoch on held-out ones is kept."""
        order = torch.randperm(len(target), generator=run.generator("validation"))
        count = int(self.validation * len(target))
        held, seen = order[:count], order[count:]
        best, drawn = Best(self.network), run.generator("order")
        steps = self.optimizer(list(self.network.parameters()))
        rate = self.schedule(steps)

        def loss(patches: Tensor) -> Tensor:
            known = target[patches.to(target.device)]
            return F.cross_entropy(self.network(self.neighbourhoods(table, patches)), known)

        for epoch in run.epochs(self.epochs, {"optimizer": steps, "schedule": rate, "best": best}):
            self.network.train()
            for patches in seen[torch.randperm(len(seen), generator=drawn)].split(self.batch_size):
                if len(patches) > 1:
                    steps.zero_grad(set_to_none=True)
                    run.loss(loss(patches)).backward()
                    steps.step()
            rate.step()
            if len(held):
                self.network.eval()
                with torch.no_grad():
                    errors = [float(loss(part)) * len(part) for part in held.split(self.batch_size)]
                best.offer(sum(errors) / len(held), epoch)
        best.restore()
        run.note(chosen_epoch=best.epoch + 1)

    def predict(self, inputs: Inputs) -> Prediction:
        """-log likelihood, the mean of both kinds; cells of the border repeat the next one within."""
        cells = torch.stack([self.surprise(one[None]) for one in self.embed(inputs.images)])
        border, size = [self.patch_size // 2] * 4, inputs.size
        maps = upsample_and_blur(F.pad(cells[:, None], border, "replicate")[:, 0], size, self.sigma)
        if self.top is None:
            return Prediction(cells.amax((1, 2)), maps)
        highest = maps.flatten(1).topk(max(1, int(self.top * maps[0].numel())), sorted=False).values
        return Prediction(highest.mean(1), maps)

    def surprise(self, table: Tensor) -> Tensor:
        """One image (1, h, w, D) -> (h', w'), within the border. A batch would change the rounding."""
        inner = self.inner(table)
        rows, found = inner.flatten(0, 2), []
        for patches in torch.arange(len(rows)).split(ROWS):
            some = rows[patches.to(rows.device)]
            with exact_products(rows.device):
                distance, to_classes = (
                    torch.cdist(some, bank.points) for bank in (self.memory, self.classes)
                )
                logits = self.network(self.neighbourhoods(table, patches))
            least = self.likely_neighbours / len(self.memory)
            likely = (logits / self.temperature).softmax(1) > least
            usual = self.usual.points.flatten(0, 1)[patches.to(rows.device)]
            by_neighbours = self.admitted(distance, to_classes, likely)
            found.append((by_neighbours + lowest(distance, usual)) / 2)
        return -math.log(self.gamma) + self.gamma * torch.cat(found).view(inner.shape[1:3])

    def admitted(self, distance: Tensor, to_classes: Tensor, likely: Tensor) -> Tensor:
        """(n, M), (n, K), which classes are likely (n, >= K) -> the lowest admitted distance (n,)."""
        if not self.compat:
            return lowest(distance, likely[:, self.owner.points])
        ranked = likely.gather(1, to_classes.argsort(dim=1, stable=True))[:, self.owner.points]
        ranked[:, -1] = True
        return distance.sort(1).values.gather(1, ranked.int().argmax(1, keepdim=True))[:, 0]

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> patch features (B, h, w, target_dim), as PatchCore's."""
        return pooled_patches(self.backbone(images), self.patch_size, self.pretrain_dim, self.target_dim)

    def inner(self, table: Tensor) -> Tensor:
        """(N, h, w, D) -> (N, h', w', D): without patches that reach beyond the border."""
        border = self.patch_size // 2
        if min(table.shape[1:3]) <= 2 * border:
            raise UsageError(
                f"no patch of {self.patch_size} x {self.patch_size} cells lies within a grid of "
                f"{table.shape[1]} x {table.shape[2]}: choose a larger method.input, or a smaller patch_size"
            )
        return table[:, border : table.shape[1] - border, border : table.shape[2] - border]

    def neighbourhoods(self, table: Tensor, patches: Tensor) -> Tensor:
        """Patches (n,), by their number in `inner` of (N, h, w, D) -> (n, cells * D), zeros beyond."""
        image, row, column = torch.unravel_index(patches, self.inner(table).shape[:3])
        place = torch.stack([row, column], 1)[:, None] + self.patch_size // 2 + self.cells
        size = torch.tensor(table.shape[1:3])
        inside = ((place >= 0) & (place < size)).all(2)
        place = place.clamp(min=0).minimum(size - 1)
        device = table.device
        found = table[image[:, None].to(device), place[..., 0].to(device), place[..., 1].to(device)]
        return (found * inside[..., None].to(device)).flatten(1)


def around(reach: int, compat: bool) -> Tensor:
    """Cells of a neighbourhood (cells, 2), row by row, but the centre; `compat`: but the one after it."""
    one = torch.arange(-reach, reach + 1)
    cells = torch.cartesian_prod(one, one)
    left_out = len(cells) // 2 + compat
    return torch.cat([cells[:left_out], cells[left_out + 1 :]])


def classifier(inputs: int, width: int, depth: int, outputs: int, dropout: float) -> nn.Sequential:
    """(n, inputs) -> logits (n, outputs) through `depth` linear layers."""
    layers: list[nn.Module] = []
    for layer in range(depth - 1):
        layers += [nn.Linear(width if layer else inputs, width), nn.BatchNorm1d(width)]
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width if depth > 1 else inputs, outputs))


def projected(count: int, eps: float) -> int:
    """Dimensions in which so many points keep their distances to within eps (Johnson and Lindenstrauss)."""
    return int(4 * math.log(count) / (eps**2 / 2 - eps**3 / 3))


def occurrences(index: Tensor, count: int, reach: int) -> Tensor:
    """Numbers below `count` (N, h, w) -> (count, h, w): the share of each among those up to `reach` away."""
    seen = torch.zeros(count, *index.shape[1:], device=index.device)
    rows, columns = (torch.arange(side, device=index.device) for side in index.shape[1:])
    place = (index, rows[None, :, None].expand_as(index), columns.expand_as(index))
    seen.index_put_(place, torch.ones_like(index, dtype=seen.dtype), accumulate=True)
    seen = F.avg_pool2d(seen, 2 * reach + 1, 1, reach, divisor_override=1)
    return seen / seen.sum(0)


def lowest(distance: Tensor, admitted: Tensor) -> Tensor:
    """(n, M) twice -> (n,): the lowest admitted distance; the farthest is admitted always."""
    return torch.minimum(distance.masked_fill(~admitted, torch.inf).amin(1), distance.amax(1))
