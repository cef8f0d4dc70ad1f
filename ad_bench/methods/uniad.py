"""UniAD: one transformer reconstructs the features of all categories, and is kept from copying its input.

Paper: You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, arXiv:2206.03687.
Reference: zhiyuanyou/UniAD at a5b9d9d, Apache-2.0.
Three things stand against copying: every decoder layer starts from a learnt query of its own, no token sees
its neighbourhood, and in training the tokens are disturbed.
Deviations from the reference:
  1. The frozen features are computed once and kept, not in every epoch: no image is changed at random.
  2. The published figures are of the best test epoch (every tenth is tested); ours are the last epoch's.
  3. Images of another size than 224 x 224 have their features resized to the grid too; there the transformer
     has the size of the features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.transformer import Attention, FeedForward, LearnedPlaces, neighbourhood


class EncoderLayer(nn.Module):
    """Tokens look at each other."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.among, self.forth = Attention(width, heads, dropout), FeedForward(width, inner, dropout)

    def forward(self, tokens: Tensor, places: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, width) -> the same."""
        return self.forth(self.among(tokens, tokens, places, hidden))


class DecoderLayer(nn.Module):
    """Queries of its own look at what was encoded, then at what the layer before gave (Sec. 3.2)."""

    def __init__(self, cells: int, width: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.query = nn.Embedding(cells, width)
        self.encoded, self.before = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.forth = FeedForward(width, inner, dropout)

    def forward(self, before: Tensor, encoded: Tensor, places: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, width) twice -> the same."""
        query = self.query.weight.expand_as(encoded)
        query = self.encoded(query, encoded, places, hidden)
        return self.forth(self.before(query, before, places, hidden))


class UniAD(Method):
    """Frozen features of all levels at `grid`, and a transformer that reconstructs them."""

    hidden: Tensor

    def __init__(
        self,
        backbone: Backbone,
        grid: tuple[int, int],
        width: int,
        heads: int,
        encoders: int,
        decoders: int,
        inner: int,
        dropout: float,
        neighbours: int,
        jitter: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        clip: float,
        pool: int,
    ):
        super().__init__()
        self.grid, self.jitter, self.pool = (grid[0], grid[1]), jitter, pool
        self.epochs, self.batch_size, self.clip = epochs, batch_size, clip
        self.optimizer, self.schedule = optimizer, schedule
        self.backbone = backbone
        self.enter = nn.Linear(sum(backbone.channels), width)
        self.places = LearnedPlaces(self.grid, width)
        encoder = EncoderLayer(width, heads, inner, dropout)
        decoder = DecoderLayer(grid[0] * grid[1], width, heads, inner, dropout)
        self.encoder = nn.ModuleList(copy.deepcopy(encoder) for _ in range(encoders))
        self.decoder = nn.ModuleList(copy.deepcopy(decoder) for _ in range(decoders))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, sum(backbone.channels))
        self.register_buffer("hidden", neighbourhood(self.grid, neighbours), persistent=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("backbone."):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Reconstruct the undisturbed features from disturbed ones (Sec. 3.4)."""
        with torch.no_grad():
            batches = run.track(train.batches(), text="features")
            features = torch.cat([self.embed(batch.images) for batch in batches])
        trained = [one for one in self.parameters() if one.requires_grad]
        optimizer = self.optimizer(trained)
        rate = self.schedule(optimizer)
        order, noise = run.generator("order"), run.generator("noise")
        for _ in run.epochs(self.epochs, {"optimizer": optimizer, "rate": rate}):
            for chosen in torch.randperm(len(features), generator=order).split(self.batch_size):
                wanted = features[chosen.to(features.device)]
                given = self.disturbed(wanted, torch.randn(wanted.shape, generator=noise).to(wanted.device))
                optimizer.zero_grad(set_to_none=True)
                run.loss(F.mse_loss(self.reconstruct(given), wanted)).backward()
                nn.utils.clip_grad_norm_(trained, self.clip)
                optimizer.step()
            rate.step()

    def predict(self, inputs: Inputs) -> Prediction:
        """The distance of features and reconstruction; an image scores as its worst patch (Sec. 3.4)."""
        features = self.embed(inputs.images)
        distance = (self.reconstruct(features) - features).square().sum(2).sqrt()
        size = inputs.size
        cells = distance.reshape(-1, 1, *self.grid)
        maps = F.interpolate(cells, size=size, mode="bilinear", align_corners=True)
        scores = F.avg_pool2d(maps, min(self.pool, *size), stride=1).amax((1, 2, 3))
        return Prediction(scores, maps[:, 0])

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, C): all levels, resized to the grid."""
        levels = self.backbone(images)
        resized = [F.interpolate(one, size=self.grid, mode="bilinear", align_corners=True) for one in levels]
        return torch.cat(resized, 1).flatten(2).transpose(1, 2)

    def disturbed(self, features: Tensor, noise: Tensor) -> Tensor:
        """Features (B, N, C) and standard normal noise, which grows with a token's length (Eq. 5)."""
        length = features.norm(dim=2, keepdim=True) / features.shape[2]
        return features + noise * length * self.jitter

    def reconstruct(self, features: Tensor) -> Tensor:
        """(B, N, C) -> the same."""
        places = self.places()
        encoded = self.enter(features)
        for layer in self.encoder:
            encoded = layer(encoded, places, self.hidden)
        decoded = encoded
        for layer in self.decoder:
            decoded = layer(decoded, encoded, places, self.hidden)
        return cast(Tensor, self.leave(self.norm(decoded)))
