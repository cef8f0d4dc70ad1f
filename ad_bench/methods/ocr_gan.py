"""OCR-GAN: low and high frequencies are rebuilt by a U-Net each, which choose their channels together.

Paper: Liang et al., Omni-frequency Channel-selection Representations for Unsupervised Anomaly Detection, IEEE
TIP 2023, arXiv:2203.00259. Reference: zhangzjn/OCR-GAN at 1da09d2, MIT (`ocr_gan_aug`).
Deviations from the reference:
  1. The layers of channel selection are learnt, as the paper means. There they are drawn anew in every
     forward pass, in tests too: never trained, and an image has another score every time.
  2. The sides of what is pasted have a ratio drawn on a logarithmic scale, as in CutPaste's paper, there on a
     linear one. It is pasted in the resized image, there in one resized with antialiasing.
  3. Means that the discriminator's norms keep are of passes in another order: real, fake, real, fake, pasted.
  4. Scores are not scaled by the least and the greatest of the test set; no ranking metric sees it.
  5. There is no map there; ours is the squared difference, of which the reference takes the mean.
Kept from the reference, though not to be expected: the discriminator's norms go with the batch in the first
epoch only; the discriminator, too, makes its features of real and fake alike; the sum of both frequencies
lies in [-2, 0] where nothing was clipped, the pasted copy in [-1, 1]; an incomplete batch is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.chance import whole
from ad_bench.parts.cutpaste import cut_paste
from ad_bench.parts.pyramid import doubled, halved

Pair = tuple[Tensor, Tensor]  # of high and of low frequencies


class OCRGAN(Method):
    """A generator that rebuilds both frequencies, and a discriminator whose features are compared too."""

    def __init__(
        self,
        size: int,
        base: int,
        base_discriminator: int,
        features: int,
        reduction: int,
        narrowest: int,
        adversarial: float,
        reconstruction: float,
        latent: float,
        latent_share: float,
        area: tuple[float, float],
        aspect: float,
        strength: float,
        hole: int,
        collapsed: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        if size < 32 or size & (size - 1):
            raise UsageError(f"size is a power of 2 from 32 on, halved down to one pixel; got {size}")
        super().__init__()
        self.generator = Generator(size, base, reduction, narrowest)
        self.discriminator = Discriminator(size, base_discriminator, features)
        self.apply(_draw)
        self.size, self.area, self.aspect, self.strength, self.hole = size, area, aspect, strength, hole
        self.adversarial, self.reconstruction, self.latent = adversarial, reconstruction, latent
        self.latent_share, self.collapsed = latent_share, collapsed
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Generator and discriminator in turn, on normal images; pasted ones are fakes to the latter."""
        draws = run.generator("pasted")
        makes = self.optimizer(list(self.generator.parameters()))
        judges = self.optimizer(list(self.discriminator.parameters()))
        for epoch in run.epochs(self.epochs, {"generator": makes, "discriminator": judges}):
            self.generator.train()
            self.discriminator.train(epoch == 0)
            for batch in train.batches(self.batch_size, shuffle=True):
                if len(batch.images) < min(self.batch_size, len(train)):
                    continue
                images = self.resized(batch.images)
                high, low = decoupled(images)
                real, fake = high + low, self.generator((high, low))
                makes.zero_grad(set_to_none=True)
                run.loss(self.generator_loss(real, fake)).backward()
                makes.step()
                pasted = 2 * torch.stack([self.pasted(image, draws) for image in images]) - 1
                judges.zero_grad(set_to_none=True)
                loss = run.loss(self.discriminator_loss(real, fake.detach(), pasted))
                loss.backward()
                judges.step()
                if loss < self.collapsed:
                    self.discriminator.apply(_draw)

    def predict(self, inputs: Inputs) -> Prediction:
        """The squared difference of image and reconstruction, and of what the discriminator sees in both."""
        high, low = decoupled(self.resized(inputs.images))
        real, fake = high + low, self.generator((high, low))
        maps = (real - fake).square().mean(1)
        latent = (self.discriminator(real)[1] - self.discriminator(fake)[1]).square().mean((1, 2, 3))
        return Prediction((1 - self.latent_share) * maps.mean((1, 2)) + self.latent_share * latent, maps)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Taken for real, near to the image, alike in features."""
        with torch.no_grad():
            wanted = self.discriminator(real)[1]
        judged, features = self.discriminator(fake)
        near = self.reconstruction * F.l1_loss(fake, real) + self.latent * F.mse_loss(features, wanted)
        return self.adversarial * _judged(judged, 1) + near

    def discriminator_loss(self, real: Tensor, fake: Tensor, pasted: Tensor) -> Tensor:
        """Real from fake and from pasted; no gradient reaches the generator."""
        (real, wanted), (fake, features) = self.discriminator(real), self.discriminator(fake)
        wrong = _judged(real, 1) + _judged(fake, 0) + _judged(self.discriminator(pasted)[0], 0)
        return wrong + self.latent * F.mse_loss(features, wanted)

    def resized(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, size, size), bilinear without antialiasing, as OpenCV's."""
        if images.shape[-2:] == (self.size, self.size):
            return images
        return F.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)

    def pasted(self, image: Tensor, draws: torch.Generator) -> Tensor:
        """(3, H, W) -> the same with a piece of it elsewhere and a black square, cut off at the border."""
        image = cut_paste(image, draws, self.area, self.aspect, self.strength)[0]
        top, left = (whole(draws, 0, side - 1) - self.hole // 2 for side in image.shape[1:])
        image[:, max(0, top) : top + self.hole, max(0, left) : left + self.hole] = 0
        return image


def decoupled(images: Tensor) -> Pair:
    """(B, 3, H, W) in [0, 1] -> high and low frequencies in [-1, 1], of 8-bit levels, none below 0."""
    levels = (255 * images).round()
    low = doubled(halved(levels))
    return 2 * (levels - low).clamp(min=0) / 255 - 1, 2 * low / 255 - 1


class Generator(nn.Module):
    """Two U-Nets side by side, of high and of low frequencies, joined at every level of their encoders."""

    def __init__(self, size: int, base: int, reduction: int, narrowest: int):
        super().__init__()
        depth = size.bit_length() - 1  # down to one pixel
        wide = [3, base, 2 * base, 4 * base] + (depth - 3) * [8 * base]
        self.down, self.choose, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (outer, inner) in enumerate(pairwise(wide)):
            first, last = level == 0, level == depth - 1
            self.down.append(Both(*(_down(outer, inner, not first, not (first or last)) for _ in range(2))))
            self.choose.append(ChannelSelection(inner, max(inner // reduction, narrowest)))
            self.up.append(Both(*(_up(inner if last else 2 * inner, outer, first) for _ in range(2))))

    def forward(self, pair: Pair) -> Tensor:
        """(B, 3, size, size) twice -> the sum of what is made of each, both in (-1, 1)."""
        levels: list[Pair] = []
        for down, choose in zip(self.down, self.choose, strict=True):
            pair = choose(down(pair))
            levels.append(pair)
        high, low = levels.pop()
        for up in reversed(self.up):
            high, low = up((high, low))
            if levels:
                beside = levels.pop()
                high, low = torch.cat([beside[0], high], 1), torch.cat([beside[1], low], 1)
        return high + low


class Both(nn.Module):
    """Two layers alike, one for each frequency."""

    def __init__(self, high: nn.Module, low: nn.Module):
        super().__init__()
        self.high, self.low = high, low

    def forward(self, pair: Pair) -> Pair:
        """Each through its own."""
        return self.high(pair[0]), self.low(pair[1])


class ChannelSelection(nn.Module):
    """How much of each channel either frequency keeps, seen from the sum of both (Sec. III)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, width)
        self.high, self.low = nn.Linear(width, channels), nn.Linear(width, channels)

    def forward(self, pair: Pair) -> Pair:
        """(B, C, h, w) twice -> the same, each channel times its share; the two shares sum to 1."""
        high, low = pair
        squeezed = self.squeeze((high + low).mean((2, 3)))
        shares = torch.stack([self.high(squeezed), self.low(squeezed)]).softmax(0)[..., None, None]
        return high * shares[0], low * shares[1]


class Discriminator(nn.Module):
    """DCGAN's encoder: halved down to 4 x 4 pixels, then a vector of features."""

    def __init__(self, size: int, base: int, features: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, base, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for _ in range(size.bit_length() - 4):
            norm = nn.BatchNorm2d(2 * base)
            layers += [nn.Conv2d(base, 2 * base, 4, 2, 1, bias=False), norm, nn.LeakyReLU(0.2)]
            base *= 2
        self.features = nn.Sequential(*layers, nn.Conv2d(base, features, 4, bias=False))
        self.judge = nn.Conv2d(features, 1, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, size, size) -> probability of being real, (B,), and features (B, C, 1, 1)."""
        features = self.features(images)
        return self.judge(features).sigmoid().flatten(), features


def _down(inside: int, outside: int, active: bool, norm: bool) -> nn.Sequential:
    before = [nn.LeakyReLU(0.2)] if active else []
    after = [nn.BatchNorm2d(outside)] if norm else []
    return nn.Sequential(*before, nn.Conv2d(inside, outside, 4, 2, 1, bias=False), *after)


def _up(inside: int, outside: int, image: bool) -> nn.Sequential:
    after = nn.Tanh() if image else nn.BatchNorm2d(outside)
    return nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=image), after)


def _judged(probability: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy(probability, torch.full_like(probability, label))


def _draw(layer: nn.Module) -> None:
    """The reference's start: weights from N(0, 0.02), those of batch norms from N(1, 0.02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)
