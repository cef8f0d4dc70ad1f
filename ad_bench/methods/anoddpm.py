"""AnoDDPM: an image half drowned in smooth noise and restored by a diffusion model of normal images.

Paper: Wyatt et al., AnoDDPM: Anomaly detection with denoising diffusion probabilistic models using simplex
noise, CVPR Workshops 2022, pages 650-656. Written for slices of brain scans; of MVTec AD it shows pictures,
no figures.
Reference: Julian-Wyatt/AnoDDPM at 3052f04, MIT.
Deviations from the reference:
  1. Attention has the two heads it was trained with in tests too; there the network of the tests is built
     without the setting and splits the same weights as one head.
  2. All lattice points within reach make the simplex noise, there some are missing (see parts/simplex.py),
     and its permutations come from torch's generators.
  3. The noise of the tests is drawn once in the fit, the same for all images; there anew for each of them.
  4. An epoch passes over all images; there it is 100 of them, of which its set of brain scans holds as many.
  5. Images of a batch have noise and times of their own; there batches are of one image.
  6. Whole images are resized, and trained on as they are; there windows of 256 pixels are cut out of MVTec's
     leather, and the brain scans moved and turned a little.
  7. An image scores as its worst pixel: the paper scores pixels only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.average import follow
from ad_bench.parts.chance import whole
from ad_bench.parts.denoiser import Denoiser
from ad_bench.parts.diffusion import BETAS, Diffusion
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.simplex import random_tables, simplex_octaves


class AnoDDPM(Method):
    """A denoiser of simplex noise; what it changes in an image noised up to time `distance` is anomalous."""

    seed: Tensor  # of the noise of the tests

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int,
        betas: str,
        trained_steps: int,
        distance: int,
        chains: int,
        octaves: int,
        persistence: float,
        frequency: float,
        epochs: int,
        batch_size: int,
        clip: float,
        decay: float,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if betas not in BETAS:
            raise UsageError(f"betas is one of {', '.join(BETAS)}; got '{betas}'")
        if not 1 <= distance <= trained_steps <= steps:
            raise UsageError(
                f"1 <= distance <= trained_steps <= steps; got {distance}, {trained_steps} and {steps}"
            )
        if chains < 1:
            raise UsageError(f"chains is how often an image is restored, from 1; got {chains}")
        super().__init__()
        self.denoiser = denoiser.requires_grad_(False)  # the average of those that were trained
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.diffusion = Diffusion(BETAS[betas](steps))
        self.trained_steps, self.distance, self.chains = trained_steps, distance, chains
        self.octaves, self.persistence, self.frequency = octaves, persistence, frequency
        self.epochs, self.batch_size, self.clip, self.decay = epochs, batch_size, clip, decay
        self.optimizer = optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Learn which noise is in noised normal images; the average of the weights is kept."""
        stride = self.denoiser.stride
        if train.size[0] % stride or train.size[1] % stride:
            raise UsageError(
                f"AnoDDPM halves images to cells of {stride} pixels, both sides are multiples of it; "
                f"got {train.size[0]}x{train.size[1]}. Set dataset.input, or method.input where the data set "
                f"has none, such as method.input={{size: [256, 256]}}"
            )
        self.seed.fill_(whole(run.generator("noise of the tests"), 0, 2**31 - 2))
        network = copy.deepcopy(self.denoiser).requires_grad_(True)
        optimizer = self.optimizer(list(network.parameters()))
        draws = run.generator("noise")
        for _ in run.epochs(self.epochs, {"network": network, "optimizer": optimizer}):
            for batch in train.batches(self.batch_size, shuffle=True):
                times = torch.randint(self.trained_steps, (len(batch.images),), generator=draws)
                noise = torch.cat([self.noise(batch.images[:1], int(time), draws) for time in times])
                optimizer.zero_grad(set_to_none=True)
                run.loss(self.loss(network, batch.images, noise, times.to(noise.device))).backward()
                nn.utils.clip_grad_norm_(network.parameters(), self.clip)
                optimizer.step()
                follow(self.denoiser, network, self.decay)

    def predict(self, inputs: Inputs) -> Prediction:
        """Squared distance to the image restored, the mean over the channels; its worst pixel.

        Of several chains, each with noise of its own, the mean image counts.
        """
        images = 2 * inputs.images - 1
        draws = torch.Generator().manual_seed(int(self.seed))
        restored = torch.zeros_like(images)
        for _ in range(self.chains):
            restored += self.restored(images, self.distance, draws) / self.chains
        maps = (images - restored).square().mean(1)
        return Prediction(worst_pixel(maps), maps)

    def loss(self, network: nn.Module, images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Mean squared error of the predicted noise."""
        noised = self.diffusion.noised(2 * images - 1, noise, times)
        return (network(noised, times) - noise).square().mean()

    def restored(self, images: Tensor, distance: int, draws: torch.Generator) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the same, noised by `distance` steps at once and led back one by one."""
        if distance == 0:
            return images
        noised = self.diffusion.noised(images, self.noise(images[:1], distance - 1, draws), distance - 1)
        for time in reversed(range(distance)):
            predicted = self.denoiser(noised, torch.full((len(images),), time, device=images.device))
            fresh = self.noise(images[:1], time, draws) if time else None
            noised = self.diffusion.back(noised, predicted, fresh, time)
        return noised

    def noise(self, like: Tensor, time: int, draws: torch.Generator) -> Tensor:
        """(1, C, H, W): simplex noise, another field for each channel, sliced at the depth of the time."""
        tables = random_tables(like.shape[1], draws).to(like.device)
        size = (like.shape[2], like.shape[3])
        fields = simplex_octaves(tables, time, size, self.octaves, self.persistence, self.frequency)
        return fields[None].to(like)
