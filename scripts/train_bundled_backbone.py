"""Train the backbone that adbench carries: `python scripts/train_bundled_backbone.py`, CPU, no data needed.

A tiny timm ResNet learns to see structure through noise and uneven light. Every training image is a patchwork
of random procedural textures, drawn anew. At every position of its three stages the network tells, by linear
read-outs that are thrown away afterwards, how the clean pattern looks there; from the last two also its
kind, direction and scale, and whether a border runs through.

It shares no code, seed or picture with `ad_bench/datasets/synthetic.py`: here gratings and filtered noise
fill random pieces, made in batches by torch; there a weave, tiles, a gear and a chip are drawn pixel by pixel
from a hash. No object and no defect of that set, nor any image of it, is seen in training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

ARCHITECTURE = "test_resnet"
MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)
SIZE = 96
PATCHES = 4  # textures in one image
KINDS = ("plain", "clouds", "grating", "crossed", "grain", "streaks", "spots", "strokes")
DIRECTED = torch.tensor([False, False, True, True, False, True, False, True])
SCALED = torch.tensor([False, True, True, True, True, True, True, True])
DIRECTIONS, SCALES = 12, 6
SHORTEST, LONGEST = 4.0, 24.0  # wavelengths, pixels
STRIDES = (4, 8, 16)


# ------------------------------------------------------------- training images


class Patchworks:
    """An endless stream of images with what is true at every pixel of them."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        axis = torch.arange(SIZE) - SIZE / 2 + 0.5
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")
        self.fy = torch.fft.fftfreq(SIZE)[:, None].expand(SIZE, SIZE // 2 + 1)
        self.fx = torch.fft.rfftfreq(SIZE)[None].expand(SIZE, SIZE // 2 + 1)

    def rand(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.random)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def chance(self, p: float, *shape: int) -> Tensor:
        return (self.rand(*shape) < p).float()

    def filtered(self, gain: Tensor) -> Tensor:
        """Noise (n, SIZE, SIZE) of deviation 1 whose spectrum is `gain` (n, SIZE, SIZE // 2 + 1)."""
        noise = torch.fft.irfft2(torch.fft.rfft2(self.normal(len(gain), SIZE, SIZE)) * gain, s=(SIZE, SIZE))
        return noise / noise.std(dim=(1, 2), keepdim=True).clamp_min(1e-6)

    def clouds(self, n: int, width: Tensor) -> Tensor:
        """Smooth noise whose bumps are about `width` (n,) pixels wide."""
        square = self.fy.square() + self.fx.square()
        return self.filtered(torch.exp(-square * (2.5 * width.view(-1, 1, 1)).square()))

    def textures(self, kind: Tensor, angle: Tensor, wavelength: Tensor) -> Tensor:
        """Patterns (n, SIZE, SIZE), most of them within -1 and 1."""
        field = torch.zeros(len(kind), SIZE, SIZE)
        for number, name in enumerate(KINDS):
            rows = (kind == number).nonzero()[:, 0]
            if name != "plain" and len(rows):
                field[rows] = self.pattern(name, angle[rows].view(-1, 1, 1), wavelength[rows].view(-1, 1, 1))
        return field

    def pattern(self, name: str, angle: Tensor, length: Tensor) -> Tensor:
        n = len(angle)
        cos, sin = angle.cos(), angle.sin()
        if name == "clouds":
            return 0.6 * self.clouds(n, length.flatten())
        if name in ("grating", "crossed"):
            # A slow bend of the plane: nothing that is made is quite straight.
            bend = F.interpolate(self.normal(n, 1, 5, 5), size=(SIZE, SIZE), mode="bicubic")[:, 0]
            u, v = cos * self.x + sin * self.y, cos * self.y - sin * self.x
            phase, sharp = self.rand(n, 1, 1, high=2 * math.pi), self.rand(n, 1, 1, low=0.6, high=6)
            turns = 2 * math.pi * (u / length + self.rand(n, 1, 1, high=0.4) * bend)
            wave = torch.tanh(sharp * torch.sin(turns + phase)) / torch.tanh(sharp)
            if name == "grating":
                return wave
            turns = 2 * math.pi * v / (length * self.rand(n, 1, 1, low=1, high=2))
            other = torch.tanh(sharp * torch.sin(turns + phase)) / torch.tanh(sharp)
            return torch.where(self.chance(0.5, n, 1, 1) > 0, torch.minimum(wave, other), wave * other)
        if name in ("grain", "spots"):
            radius = (self.fx.square() + self.fy.square()).sqrt()
            grain = self.filtered(torch.exp(-((radius * length - 1) * 2.5).square()))
            return 0.6 * grain if name == "grain" else torch.tanh(5 * (grain - 0.6))
        along, across = cos * self.fx + sin * self.fy, cos * self.fy - sin * self.fx
        spectrum = torch.exp(-((along.abs() * length - 1) * 1.6).square() - (across * length * 3.5).square())
        streaks = self.filtered(spectrum)
        return 0.6 * streaks if name == "streaks" else torch.tanh(5 * (streaks - 0.8))

    def layout(self, n: int) -> Tensor:
        """The patch of each pixel (n, SIZE, SIZE): two torn areas, an angular and a round piece on top."""
        torn = torch.stack([self.clouds(n, self.rand(n, low=12, high=30)) for _ in range(2)], 1)
        index = torn.argmax(1)
        for number in (2, 3):
            cx, cy = (self.rand(n, 1, 1, low=-44, high=44) for _ in range(2))
            angle = self.rand(n, 1, 1, high=math.pi)
            a, b = self.rand(n, 1, 1, low=4, high=30), self.rand(n, 1, 1, low=4, high=30)
            dx, dy = self.x - cx, self.y - cy
            u, v = (angle.cos() * dx + angle.sin() * dy) / a, (angle.cos() * dy - angle.sin() * dx) / b
            skew = self.rand(n, 1, 1, low=-0.5, high=0.5)
            inside = torch.maximum((u + skew * v).abs(), v.abs()) < 1 if number == 2 else u * u + v * v < 1
            index = torch.where(inside, number, index)
        return index

    def batch(self, n: int) -> dict[str, Tensor]:
        """`image` (n, 3, SIZE, SIZE) in [0, 1], `clean` the same in even light; labels (n, SIZE, SIZE)."""
        m = n * PATCHES
        kind = torch.randint(len(KINDS), (m,), generator=self.random)
        angle = self.rand(m, high=math.pi)
        scale = self.rand(m)
        field = self.textures(kind, angle, SHORTEST * (LONGEST / SHORTEST) ** scale)
        # In half of the images all patches have the same two colours: only structure tells them apart.
        colours = self.rand(n, PATCHES, 2, 1, low=0.1, high=0.8) + 0.12 * self.normal(n, PATCHES, 2, 3)
        colours = torch.where(self.chance(0.5, n, 1, 1, 1) > 0, colours[:, :1], colours).clamp(0.03, 0.95)
        mixture = (0.5 + 0.5 * field.view(n, PATCHES, 1, SIZE, SIZE)).clamp(-0.2, 1.2)
        dark, light = (colours[:, :, k, :, None, None] for k in range(2))
        painted = dark + (light - dark) * mixture
        index = self.layout(n)
        chosen = F.one_hot(index, PATCHES).permute(0, 3, 1, 2).unsqueeze(2).float()
        clean = (painted * chosen).sum(1)
        labels = {  # -1: has none
            "kind": kind,
            "angle": torch.where(DIRECTED[kind], (angle / math.pi * DIRECTIONS).long(), -1),
            "scale": torch.where(SCALED[kind], (scale * SCALES).long(), -1),
        }
        truth = {
            name: torch.gather(value.view(n, PATCHES), 1, index.flatten(1)).view_as(index)
            for name, value in labels.items()
        }
        border = torch.zeros(n, SIZE, SIZE)
        border[:, 1:] += index[:, 1:] != index[:, :-1]
        border[:, :, 1:] += index[:, :, 1:] != index[:, :, :-1]
        return {"image": self.photograph(clean), "clean": clean, "border": border.clamp(max=1), **truth}

    def photograph(self, clean: Tensor) -> Tensor:
        """`clean` in uneven, coloured light, out of focus at times, with noise."""
        n = len(clean)
        slope = self.rand(n, 2, 1, 1, low=-0.35, high=0.35) / SIZE
        light = 1 + slope[:, :1] * self.x + slope[:, 1:] * self.y
        light = light * (1 + 0.08 * self.clouds(n, self.rand(n, low=25, high=50)).unsqueeze(1))
        light = light * self.rand(n, 1, 1, 1, low=0.7, high=1.3) * self.rand(n, 3, 1, 1, low=0.88, high=1.12)
        image = clean * light
        soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        image = image + self.rand(n, 1, 1, 1) * (soft - image)
        strength = 0.06 * self.rand(n, 1, 1, 1).square()
        noise = self.normal(n, 1, SIZE, SIZE) + 0.5 * self.normal(n, 3, SIZE, SIZE)
        coarse = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1)), 3, 1) * 2
        noise = torch.where(self.chance(0.3, n, 1, 1, 1) > 0, coarse, noise)
        return (image + strength * noise).clamp(0, 1)


# ------------------------------------------------------------------- training


class Student(nn.Module):
    """The network with linear read-outs, which are thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model(ARCHITECTURE, features_only=True, out_indices=(1, 2, 3))
        channels = self.net.feature_info.channels()
        self.look = nn.ModuleList(
            nn.Conv2d(c, 3 + (16 if s == 4 else 64), 1) for c, s in zip(channels, STRIDES, strict=True)
        )
        classes = len(KINDS) + DIRECTIONS + SCALES + 1
        self.tell = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels[1:])
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features = self.net((images - self.mean) / self.std)
        looks = [head(level) for head, level in zip(self.look, features, strict=True)]
        return looks, [head(level) for head, level in zip(self.tell, features[1:], strict=True)]


def appearance(clean: Tensor, stride: int) -> Tensor:
    """What a position of a stage should know of the clean image: pixels and colours, coarser with depth."""
    grey = clean.mean(1, keepdim=True)
    centre = grey.mean(dim=(2, 3), keepdim=True)
    spread = grey.std(dim=(2, 3), keepdim=True).clamp_min(0.05)
    levels = (grey - centre) / spread
    colour = F.avg_pool2d((clean - grey) / spread, stride)
    side = min(stride, 8)  # the deepest stage sees 16 x 16 pixels at half their resolution
    return torch.cat([F.pixel_unshuffle(F.avg_pool2d(levels, stride // side), side), colour], 1)


def losses(student: Student, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The loss; for the log the error of the looks (1: nothing known) and the share of right answers."""
    looks, tells = student(batch["image"])
    log: dict[str, float] = {}
    loss = torch.zeros(())
    for stride, look in zip(STRIDES, looks, strict=True):
        error = F.mse_loss(look, appearance(batch["clean"], stride))
        loss = loss + error
        log[f"look{stride}"] = float(error.detach())
    for stride, tell in zip(STRIDES[1:], tells, strict=True):
        kind, angle, scale, border = tell.split([len(KINDS), DIRECTIONS, SCALES, 1], dim=1)
        middle = slice(stride // 2, None, stride)
        for name, answer in (("kind", kind), ("angle", angle), ("scale", scale)):
            truth = batch[name][:, middle, middle]
            loss = loss + 0.5 * F.cross_entropy(answer, truth, ignore_index=-1)
            known = truth >= 0
            log[f"{name}{stride}"] = float((answer.argmax(1) == truth)[known].float().mean())
        crossed = F.max_pool2d(batch["border"].unsqueeze(1), stride)
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(border, crossed)
    return loss, log


def train(steps: int, batch_size: int, seed: int, learning_rate: float) -> tuple[Student, dict[str, float]]:
    torch.manual_seed(seed)
    student, stream = Student().to(memory_format=torch.channels_last), Patchworks(seed)
    optimizer = torch.optim.AdamW(student.parameters(), learning_rate, weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    mean: dict[str, float] = {}
    begun = time.monotonic()
    for step in range(1, steps + 1):
        loss, log = losses(student, stream.batch(batch_size))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        plan.step()
        if not math.isfinite(float(loss.detach())):
            raise FloatingPointError(f"the loss is {float(loss.detach())} at step {step}")
        log["loss"] = float(loss.detach())
        share = max(1 / step, 0.01)
        mean = {key: mean.get(key, value) * (1 - share) + value * share for key, value in log.items()}
        if step % 200 == 0 or step == steps:
            shown = " ".join(f"{key} {value:.3f}" for key, value in sorted(mean.items()))
            print(f"step {step}/{steps} {time.monotonic() - begun:.0f} s  {shown}", flush=True)
    student.eval()
    with torch.no_grad():  # fresh images, running statistics: what the saved network does
        held_out = Patchworks(seed + 1)
        rounds = [losses(student, held_out.batch(64))[1] for _ in range(8)]
    final = {key: sum(log[key] for log in rounds) / len(rounds) for key in rounds[0]}
    return student, final


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    weights = Path(__file__).resolve().parents[1] / "ad_bench" / "weights"
    default = weights / f"{ARCHITECTURE}.adbench.safetensors"
    parser.add_argument("--out", type=Path, default=default, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=20240)
    parser.add_argument("--threads", type=int, default=1, help="of torch; another number rounds otherwise")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    begun = time.monotonic()
    student, final = train(args.steps, args.batch_size, args.seed, args.learning_rate)
    seconds = time.monotonic() - begun
    print("on fresh images: " + " ".join(f"{key} {value:.3f}" for key, value in sorted(final.items())))
    tensors = {key: value.contiguous() for key, value in student.net.state_dict().items()}
    metadata = {
        "timm_name": ARCHITECTURE,
        "tag": "adbench",
        "mean": ",".join(map(str, MEAN)),
        "std": ",".join(map(str, STD)),
        "licence": "Apache-2.0 (no external data)",
        "contains": "stem,layer1,layer2,layer3",
        "training": "scripts/train_bundled_backbone.py: appearance, kind, direction, scale and borders of "
        "procedural patchworks",
        "steps": str(args.steps),
        "batch_size": str(args.batch_size),
        "learning_rate": str(args.learning_rate),
        "seed": str(args.seed),
        "fresh_images": json.dumps({key: round(value, 4) for key, value in sorted(final.items())}),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out, metadata)
    content = args.out.read_bytes()
    print(f"{args.out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
