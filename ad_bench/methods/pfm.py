"""PFM: two pretrained networks' features are mapped to each other's; where that fails is an anomaly.

Paper: Wan et al., Unsupervised Image Anomaly Detection and Segmentation Based on Pre-trained Feature Mapping,
IEEE Transactions on Industrial Informatics 2022, doi 10.1109/TII.2022.3182385. With `positions`, each cell
is told where it lies: PEFM, Wan et al., Position Encoding Enhanced Feature Mapping for Image Anomaly
Detection, IEEE CASE 2022.
Reference: smiler96/PFM-and-PEFM-for-Image-Anomaly-Detection-and-Segmentation at 89268b6 (no licence: run for
the fixtures, not copied); of PEFM, PEFM_AD.py with --pe_required, as its README calls it.
Deviations from the reference:
  1. One optimiser with a learning rate for each level in place of three: no level's gradient reaches another.
  2. Images of any size whose levels lie side by side; for PEFM there squares of 128, 192, 256 or 512.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ad_bench.contract import Batch, Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.mapping import MappedLevels
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.optimize import optimize


class PFM(Method):
    """Two frozen networks, `first` and `second`; the mappings between their levels learn."""

    def __init__(
        self,
        first: Backbone,
        second: Backbone,
        latent: Sequence[int],
        positions: bool,
        epochs: int,
        batch_size: int,
        rates: Sequence[float],
        optimizer: Callable[[list[Any]], Optimizer],
    ):
        super().__init__()
        if len(rates) != len(latent):
            raise UsageError(f"rates are {len(latent)}, one for each of latent={latent}; got {list(rates)}")
        self.mapped = MappedLevels(first, second, latent, positions)
        self.epochs, self.batch_size, self.rates, self.optimizer = epochs, batch_size, rates, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Train the mappings of all levels, each by its own error."""
        optimize(
            self.loss,
            self.mapped.mappings.parameters(),
            train,
            run,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=lambda _: self.optimizer(self.mapped.groups(self.rates)),
        )

    def predict(self, inputs: Inputs) -> Prediction:
        """The squared distance of what was mapped, averaged over ways and levels; worst pixel."""
        maps = self.mapped(inputs.images)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, batch: Batch) -> Tensor:
        """Sum over the levels of both ways' mean squared errors."""
        return self.mapped.losses(batch.images).sum()
