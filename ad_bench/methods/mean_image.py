"""Mean image: the difference to the average normal image. What alignment alone is worth."""

from __future__ import annotations

import torch

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import DataError
from ad_bench.parts.bank import Bank
from ad_bench.parts.maps import gaussian_blur, worst_pixel


class MeanImage(Method):
    """Keeps the pixel-wise mean of the training images."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma
        self.mean = Bank()  # (3, H, W)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Average the training images."""
        total, count = torch.zeros(()), 0
        for batch in run.track(train.batches(), text="images"):
            total = total.to(batch.images.device) + batch.images.double().sum(0)
            count += len(batch.images)
        if count == 0:
            raise ValueError("no training images: nothing to average")
        self.mean.points = (total / count).float()

    def predict(self, inputs: Inputs) -> Prediction:
        """Absolute difference, averaged over channels and smoothed; an image scores as its worst pixel."""
        if inputs.images.shape[1:] != self.mean.points.shape:
            raise DataError(
                f"images of {tuple(inputs.images.shape[1:])} cannot be compared with a mean image of "
                f"{tuple(self.mean.points.shape)}; train and test need one size (dataset.input)"
            )
        maps = gaussian_blur((inputs.images - self.mean.points).abs().mean(1), self.sigma)
        return Prediction(worst_pixel(maps), maps)
