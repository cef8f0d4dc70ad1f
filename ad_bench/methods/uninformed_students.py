"""Uninformed Students: an ensemble learns a teacher's descriptors of normal pixels; of others it errs.

Paper: Bergmann et al., Uninformed Students: Student-Teacher Anomaly Detection with Discriminative Latent
Embeddings, CVPR 2020, arXiv:1911.02357. The authors published no code; denguir/student-teacher-anomaly-
detection at fc279ef (others', no licence) was run for the fixture, not copied.
The teachers' pretraining is part of every fit, and its data are our reading (1).
Deviations from the paper:
  1. Teachers are distilled from patches of the training images and of `pictures`, there from ImageNet's: with
     a folder of those as `pictures`, and own=0, it is the same. The triplet loss is left out.
  2. A patch is cut out first and resized then; there the image is resized first.
  3. The last convolution is linear: targets of mean 0 could not be met from behind a ReLU.
Not followed in that code, which departs from the paper: it correlates the samples of a batch in place of the
descriptors' dimensions, and its students regress what a decoder behind the descriptor gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ad_bench.contract import Inputs, Method, Prediction, Run, Stateful, TrainSet
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.chance import happens, uniform, whole
from ad_bench.parts.dense import dense
from ad_bench.parts.maps import worst_pixel
from ad_bench.parts.selection import Images, hold_out
from ad_bench.parts.textures import Textures

# Kernel and width of the convolutions before the last, and whether a pooling follows, by the size of patches.
STAGES = {
    17: [(6, 1, False), (5, 2, False), (5, 2, False)],
    33: [(5, 1, True), (5, 2, True), (2, 2, False)],
    65: [(5, 1, True), (5, 1, True), (5, 2, True), (4, 2, False)],
}


def patch_network(side: int, width: int, dimensions: int) -> nn.Sequential:
    """(N, 3, side, side) -> (N, dimensions, 1, 1)."""
    if side not in STAGES:
        raise UsageError(f"patches are {', '.join(map(str, STAGES))} pixels wide; got {side}")
    layers: list[nn.Module] = []
    inside = 3
    for kernel, factor, pooled in STAGES[side]:
        layers += [nn.Conv2d(inside, factor * width, kernel), nn.LeakyReLU(5e-3)]
        layers += [nn.MaxPool2d(2)] if pooled else []
        inside = factor * width
    return nn.Sequential(*layers, nn.Conv2d(inside, dimensions, 1 if side == 65 else 4))


class Scale(nn.Module):
    """One size of patches: a teacher, its students, and what is usual for both on normal images."""

    mean: Tensor
    std: Tensor
    usual: Tensor

    def __init__(self, side: int, students: int, width: int, dimensions: int):
        super().__init__()
        self.side, self.teacher = side, patch_network(side, width, dimensions)
        self.students = nn.ModuleList(patch_network(side, width, dimensions) for _ in range(students))
        self.register_buffer("mean", torch.zeros(dimensions, 1, 1))  # of the teacher's descriptors
        self.register_buffer("std", torch.ones(dimensions, 1, 1))
        self.register_buffer("usual", torch.tensor([[0.0, 1.0]] * 2).T.clone())  # mean and std of `judged`

    def described(self, network: nn.Module, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dimensions, H, W): of the patch around every pixel, zeros beyond the border."""
        return dense(cast(nn.Sequential, network), self.side, F.pad(images, [self.side // 2] * 4))

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """The teacher's descriptors, every dimension of mean 0 and deviation 1 on the training images."""
        return (self.described(self.teacher, images) - self.mean) / self.std

    def judged(self, images: Tensor) -> Tensor:
        """(B, 2, H, W): squared error of the students' mean answer, and their variance around it."""
        answers = torch.stack([self.described(student, images) for student in self.students])
        error = (answers.mean(0) - self.target(images)).square().sum(1)
        return torch.stack([error, (answers - answers.mean(0)).square().mean(0).sum(1)], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W): both in deviations from what is usual, added."""
        mean, std = self.usual[:, :, None, None]
        return ((self.judged(images) - mean) / std).sum(1)


class UninformedStudents(Method):
    """For each of `patches` a teacher, distilled from the backbone, and `students`, who know only that.

    pictures: None or a folder, see `Textures`; a `pool` of them is drawn anew after every `chunk` of the
    `teacher_steps`. own: the share of patches that come of training images. A patch shows an image's sides
    divided by a number from `zoom`; a share `grey` of them has no colour.
    """

    def __init__(
        self,
        backbone: Backbone,
        patches: Sequence[int],
        students: int,
        width: int,
        dimensions: int,
        pictures: str | None,
        pool: int,
        own: float,
        zoom: tuple[float, float],
        grey: float,
        compactness: float,
        chunk: int,
        teacher_steps: int,
        teacher_batch: int,
        teacher_optimizer: Callable[[list[nn.Parameter]], Optimizer],
        validation: float,
        epochs: int,
        batch_size: int,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
    ):
        super().__init__()
        if students < 2:
            raise UsageError(f"students are judged by their variance too: take 2 or more; got {students}")
        if not 0 <= own <= 1 or not 1 <= zoom[0] <= zoom[1]:
            raise UsageError(f"own is a share, zoom two rising numbers from 1; got {own} and {list(zoom)}")
        self.backbone = backbone
        self.scales = nn.ModuleList(Scale(side, students, width, dimensions) for side in patches)
        self.decoded, self.pictures, self.pool = dimensions, Textures(pictures), pool
        self.own, self.zoom, self.grey, self.compactness = own, zoom, grey, compactness
        self.chunk, self.teacher_steps, self.teacher_batch = chunk, teacher_steps, teacher_batch
        self.teacher_optimizer, self.validation = teacher_optimizer, validation
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer

    def fit(self, train: TrainSet, run: Run) -> None:
        """Distil the teachers, let the students learn them; held-out images say what errors are usual."""
        run.note(pictures=str(self.pictures), own_patches=self.own)
        seen, held = hold_out(train, self.validation, run.generator("validation"))
        self.distil(seen, run)
        for scale in self.each():
            rows = (scale.described(scale.teacher, images) for images in self.batches(seen))
            mean, std = moments(rows)
            scale.mean.copy_(mean[:, None, None])
            scale.std.copy_(std[:, None, None])
        learners = [one for scale in self.each() for one in scale.students.parameters()]
        steps, order = self.optimizer(learners), run.generator("order")
        for _ in run.epochs(self.epochs, {"optimizer": steps}):
            for images in self.batches(seen, order):
                steps.zero_grad(set_to_none=True)
                for scale in self.each():
                    target = scale.target(images)
                    for student in scale.students:  # one by one: their activations are large
                        error = (scale.described(student, images) - target).square().sum(1)
                        run.loss(error.mean()).backward()
                steps.step()
        for scale in self.each():
            values = (scale.judged(images) for images in self.batches(held if len(held) else seen))
            scale.usual.copy_(torch.stack(moments(values)))

    def predict(self, inputs: Inputs) -> Prediction:
        """The mean over the sizes of patches; an image scores as its worst pixel."""
        images = self.normalised(inputs.images)
        maps = torch.stack([scale(images) for scale in self.each()]).mean(0)
        return Prediction(worst_pixel(maps), maps)

    def distil(self, seen: Images, run: Run) -> None:
        """Teachers of whose descriptor a linear decoder, thrown away then, can tell the backbone's answer."""
        generator, count = run.generator("distillation"), self.teacher_steps
        channels = self.backbone.channels[-1]
        decoders = nn.ModuleList(nn.Linear(self.decoded, channels) for _ in self.scales)
        decoders.to(self.backbone.mean)
        teachers = [one for scale in self.each() for one in scale.teacher.parameters()]
        steps = self.teacher_optimizer([*teachers, *decoders.parameters()])
        state: dict[str, Stateful] = {"optimizer": steps, "decoders": decoders}
        for done in run.epochs(math.ceil(count / self.chunk), state):
            size = (seen.pixels.shape[2], seen.pixels.shape[3])
            pictures = torch.stack([self.pictures.draw(size, generator) for _ in range(self.pool)])
            for _ in range(min(self.chunk, count - done * self.chunk)):
                steps.zero_grad(set_to_none=True)
                for scale, decoder in zip(self.each(), decoders, strict=True):
                    drawn = [
                        self.patch(seen, pictures, scale.side, generator) for _ in range(self.teacher_batch)
                    ]
                    patches = torch.stack(drawn).to(self.backbone.mean.device)
                    with torch.no_grad():
                        known = self.backbone(patches)[-1].mean((2, 3))
                    told = scale.teacher(self.normalised(patches)).flatten(1)
                    error = (decoder(told) - known).square().sum(1).mean()
                    run.loss(error + self.compactness * redundancy(told)).backward()
                steps.step()

    def patch(self, seen: Images, pictures: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """(3, side, side) in [0, 1], of a training image or of a picture."""
        own = happens(generator, self.own)
        source = seen.pixels if own else pictures
        image = source[whole(generator, 0, len(source) - 1)]
        share = 1 / uniform(generator, *self.zoom)
        height, width = (max(1, round(share * length)) for length in image.shape[1:])
        top = whole(generator, 0, image.shape[1] - height)
        left = whole(generator, 0, image.shape[2] - width)
        cut = image[None, :, top : top + height, left : left + width].float() / (255 if own else 1)
        made = F.interpolate(cut, size=(side, side), mode="bilinear", antialias=True)[0]
        return made.mean(0).expand_as(made) if happens(generator, self.grey) else made

    def each(self) -> list[Scale]:
        """The sizes of patches."""
        return [cast(Scale, scale) for scale in self.scales]

    def batches(self, images: Images, order: torch.Generator | None = None) -> Iterator[Tensor]:
        """One pass over images as the networks see them."""
        for batch in images.batches(self.batch_size, order):
            yield self.normalised(batch)

    def normalised(self, images: Tensor) -> Tensor:
        """As the backbone's normalisation has them."""
        return (images - self.backbone.mean) / self.backbone.std


def redundancy(descriptors: Tensor) -> Tensor:
    """(N, d) -> (): the squared correlations between any two dimensions, added up."""
    columns = F.normalize(descriptors - descriptors.mean(0), dim=0)
    correlation = columns.T @ columns
    return correlation.square().sum() - correlation.diagonal().square().sum()


@torch.no_grad()
def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) each -> mean and standard deviation (C,) over all images and cells, the latter above 0."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for maps in batches:
        rows = maps.transpose(0, 1).flatten(1).double()
        count += rows.shape[1]
        total, squares = total.to(rows) + rows.sum(1), squares.to(rows) + rows.square().sum(1)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=1e-12).sqrt()
