"""Random: scores and maps that know nothing. The floor of every table."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet


class Random(Method):
    """Uniform noise in [0, 1), seeded by the run and the image's bytes: order and batch change nothing."""

    seed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seed", torch.tensor(0))

    def fit(self, train: TrainSet, run: Run) -> None:
        """Keep the seed; the images are not looked at."""
        self.seed.fill_(run.seed)

    def predict(self, inputs: Inputs) -> Prediction:
        """One number for the image, one for every pixel, independent of each other."""
        draws = [self._draw(image) for image in inputs.images.cpu()]
        device = inputs.images.device
        return Prediction(
            scores=torch.stack([score for score, _ in draws]).to(device),
            maps=torch.stack([noise for _, noise in draws]).to(device),
        )

    def _draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        content = hashlib.sha256(image.contiguous().numpy().tobytes() + str(int(self.seed)).encode())
        generator = torch.Generator().manual_seed(int.from_bytes(content.digest()[:7], "little"))
        return torch.rand((), generator=generator), torch.rand(image.shape[-2:], generator=generator)
