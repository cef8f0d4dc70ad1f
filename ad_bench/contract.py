"""What methods and runner tell each other. A method sees images in [0, 1] and nothing of the test labels."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ad_bench.errors import TrainingError

T = TypeVar("T")


class Inputs(NamedTuple):
    """All that a method sees of the test set: no label, no mask, no path."""

    # (B, 3, H, W) float32 RGB in [0, 1], on the run's device; one size per batch. In channels-last memory:
    # `reshape`, where `view` would need the other order.
    images: Tensor
    category: tuple[str, ...] = ()  # length B; blank strings unless the YAML's `needs` names `category`
    extra: Mapping[str, Tensor] = {}  # what some data sets add: depth, points, templates

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        height, width = self.images.shape[-2:]
        return height, width


class Prediction(NamedTuple):
    """Higher is more anomalous, in any finite range."""

    scores: Tensor  # (B,) float32
    maps: Tensor | None  # (B, h, w) float32 at any size; None if the method does not localise


class Batch(NamedTuple):
    """Training images; labels and masks are None unless the YAML's `needs` names them."""

    images: Tensor  # as those of Inputs
    category: tuple[str, ...] = ()
    labels: Tensor | None = None  # (B,) int64, 0 normal, 1 anomalous
    masks: Tensor | None = None  # (B, H, W) bool; all False where `masked` is False
    masked: Tensor | None = None  # (B,) bool: False for an anomalous image whose mask is unknown; as `masks`


class TrainSet(Protocol):
    """The training images of one fit."""

    size: tuple[int, int]  # H, W of every image, or of those to come where there is none (zero_shot)
    support: TrainSet | None  # the few known images of the tested category, where `needs` names `support`

    def __len__(self) -> int: ...

    def batches(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        """One pass over the images. Without `batch_size` the loader's; in name order unless `shuffle`.

        The order of a shuffled pass comes from the run's seed and the number of passes so far.
        `augment` maps one image (3, H, W) to one of the same shape.
        """
        ...


class Stateful(Protocol):
    """Modules, optimisers and schedulers: what a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """What is to be kept."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take it up again."""
        ...


class Run:
    """What a fit may ask of the runner. `Run()` is enough for a test; the runner passes a richer one."""

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, torch.device(device)

    def generator(self, purpose: str = "") -> torch.Generator:
        """A CPU random generator of its own for each purpose, equal on every device for equal seeds."""
        generator = torch.Generator()
        generator.manual_seed(self.seed * 1_000_003 + zlib.crc32(purpose.encode()))
        return generator

    def track(self, items: Iterable[T], total: int | None = None, text: str = "") -> Iterator[T]:
        """The same items, with progress shown where somebody watches."""
        yield from items

    def epochs(
        self,
        count: int,
        state: Mapping[str, Stateful] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> Iterator[int]:
        """0, 1, ... count - 1: how every training counts.

        state: what the training changes beside the method's own state_dict(): optimisers, schedulers,
        networks that are thrown away afterwards. The runner saves it with all random states, so that a
        killed training goes on with the same result; generators are asked for before the loop.
        ready: called before a test epoch is scored (papers whose figure is the best one), where the method
        cannot predict from its state alone.
        """
        yield from range(count)

    def loss(self, value: Tensor) -> Tensor:
        """The loss of one step, as it is; TrainingError where it is NaN or infinite."""
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(f"the loss is {value.detach().flatten()[0].item()}; it must be finite")
        return value

    def note(self, **facts: object) -> None:
        """Leave facts of the fit in the record (size of the coreset, chosen backend, ...)."""


class Method(nn.Module, ABC):
    """A method of the benchmark: a Module, so state_dict(), to(device) and eval() come free.

    Everything that `predict` needs after `fit` must travel through state_dict().
    """

    @abstractmethod
    def fit(self, train: TrainSet, run: Run) -> None:
        """Learn from the training images. Called once, with the module on the run's device.

        Under protocol=continual once for each task, in order, with that task's images alone: a method keeps
        of the earlier ones what it keeps itself. One whose fit begins anew forgets them.
        """

    @abstractmethod
    def predict(self, inputs: Inputs) -> Prediction:
        """Score a batch; called in eval mode without gradients. A batch scores as its images one by one."""

    def predict_all(self, batches: Iterable[Inputs]) -> Iterator[Prediction]:
        """Score a whole test set: one answer for each batch, in their order.

        Only for methods whose paper scores the images by one another, with `transductive: true` in the YAML,
        which tables show; `predict` then gives what a batch would get as a test set of its own. Called in
        eval mode without gradients.
        """
        for inputs in batches:
            yield self.predict(inputs)
