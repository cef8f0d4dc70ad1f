"""The runner's Run: progress, checkpoints of a training, facts for the record.

A checkpoint is one file, written beside its name and moved in one step; the last two are kept. It is read
with `weights_only=True`: tensors and plain numbers, no code.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ad_bench import processes
from ad_bench.contract import Run, Stateful
from ad_bench.errors import ResultsError, TrainingError
from ad_bench.runner import stopping
from ad_bench.runner.best import Tested
from ad_bench.runner.features import Stopwatch
from ad_bench.runner.progress import Watch
from ad_bench.runner.trainset import StoredTrainSet

T = TypeVar("T")
KEPT = 2


@dataclass(frozen=True)
class Checkpoints:
    """Those of one fit, in a folder of its own."""

    folder: Path
    seconds: float  # at least so long between two; 0: after every epoch

    def save(self, state: Mapping[str, Any], loop: int, epoch: int) -> None:
        """Write one; ResultsError where the disk is full. Older ones but the last are removed."""
        final = self.folder / f"{loop:02}-{epoch:08}.pt"
        temporary = processes.temporary(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
            raise ResultsError(
                f"cannot write the checkpoint {final}: {error}; make room, set paths.cache elsewhere, or "
                "train without (runtime.checkpoint_minutes=null)"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        for old in self._all()[:-KEPT]:
            old.unlink(missing_ok=True)

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """The last one that can be read; None where there is none."""
        for path in reversed(self._all()):
            with suppress(Exception):  # torn by a loss of power: the one before it serves
                found = torch.load(path, map_location=device, weights_only=True)
                if isinstance(found, dict):
                    return found
        return None

    def remove(self) -> None:
        """The fit has its records; nothing is left to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"))


class WatchedRun(Run):
    """Progress on the screen, facts for the record, and trainings that survive a kill."""

    def __init__(
        self,
        seed: int,
        device: torch.device,
        watch: Watch,
        checkpoints: Checkpoints | None = None,
        max_epochs: int | None = None,
        tested: Tested | None = None,
        method: nn.Module | None = None,
        train: StoredTrainSet | None = None,
    ) -> None:
        super().__init__(seed, device)
        self.watch, self.checkpoints, self.max_epochs, self.tested = watch, checkpoints, max_epochs, tested
        self.facts: dict[str, object] = {}
        self.method, self.train = method, train  # what a checkpoint holds
        self.resumed: int | None = None  # the epoch that a checkpoint let the training begin with
        self._loop, self._count, self._epoch, self._step = -1, 0, 0, 0
        self._kept: tuple[int, int] | None = None  # (epochs, of so many) that the last checkpoint holds
        self._longest = 0.0  # s that an epoch took
        self._generators: dict[str, torch.Generator] = {}
        self._found: dict[str, Any] | None = None
        self._looked = False
        self._saved = time.monotonic()

    @property
    def trained(self) -> bool:
        """True once the fit has counted epochs."""
        return self._loop >= 0

    def track(self, items: Iterable[T], total: int | None = None, text: str = "") -> Iterator[T]:
        """See contract.Run."""
        return self.watch.track(items, total, text or "fit")

    def kept(self) -> str:
        """`the checkpoint of epoch 12 of 100`, what a stop now leaves to go on from; blank for nothing."""
        return f"the checkpoint of epoch {self._kept[0]} of {self._kept[1]}" if self._kept else ""

    def note(self, **facts: object) -> None:
        """See contract.Run."""
        self.facts |= facts

    def generator(self, purpose: str = "") -> torch.Generator:
        """See contract.Run; its state is part of a checkpoint."""
        generator = super().generator(purpose)
        self._generators[purpose] = generator
        return generator

    def loss(self, value: Tensor) -> Tensor:
        """See contract.Run."""
        self._step += 1
        if not bool(torch.isfinite(value).all()):
            number = value.detach().flatten()[0].item()
            raise TrainingError(
                f"the loss is {number} in epoch {self._epoch + 1}, step {self._step}; try a smaller learning "
                "rate, or runtime.precision=float32 where it is not"
            )
        return value

    def epochs(
        self,
        count: int,
        state: Mapping[str, Stateful] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> Iterator[int]:
        """See contract.Run."""
        self._loop += 1
        count = count if self.max_epochs is None else min(count, self.max_epochs)
        self._count = count
        first = self._restore(state or {})
        if first is None:
            return
        self._begin(first)
        with stopping.saving() if self.checkpoints else nullcontext():
            for epoch in range(first, count):
                self._epoch, self._step, start = epoch, 0, time.monotonic()
                self.watch.at = f"train ({count} epochs), epoch {epoch + 1}"
                yield epoch
                if self.tested is not None and self.tested.due(epoch, count):
                    self._test(self.tested, epoch, ready)
                    self._begin(epoch)
                self._longest = max(self._longest, time.monotonic() - start)
                if self._due():
                    self._save(state or {}, epoch)
                self.watch.advance(epoch + 1)
                if stopping.asked():
                    if self.checkpoints and self._kept != (epoch + 1, count):  # it came this moment
                        self._save(state or {}, epoch)
                    raise stopping.Terminated

    def _begin(self, epoch: int) -> None:
        self.watch.begin(f"train ({self._count} epochs)", self._count)
        self.watch.advance(epoch)

    def _test(self, tested: Tested, epoch: int, ready: Callable[[], object] | None) -> None:
        """Score the test images; the training goes on as if nobody had looked."""
        stopwatch = Stopwatch(self.device)
        modes = {one: one.training for one in self.method.modules()} if self.method is not None else {}
        before = random_state()
        generators = {name: one.get_state() for name, one in self._generators.items()}
        passes = self.train.passes if self.train is not None else 0
        if ready is not None:
            ready()
        if self.method is not None:
            self.method.eval()
        tested.take(epoch)
        for one, mode in modes.items():
            one.training = mode
        set_random_state(before)
        for name, generator in self._generators.items():
            if name in generators:
                generator.set_state(generators[name])
        if self.train is not None:
            self.train.passes = passes
        tested.seconds += stopwatch.seconds()

    def _due(self) -> bool:
        """Whether this epoch is to be kept: the interval is over, or the next epoch might not end."""
        if self.checkpoints is None:
            return False
        if stopping.asked() or stopping.left() < 2 * self._longest:
            return True
        return time.monotonic() - self._saved >= self.checkpoints.seconds

    def _save(self, state: Mapping[str, Stateful], epoch: int) -> None:
        assert self.checkpoints is not None
        held = {
            "loop": self._loop,
            "epoch": epoch,
            "method": self.method.state_dict() if self.method is not None else {},
            "state": {name: one.state_dict() for name, one in state.items()},
            "random": random_state(),
            "generators": {name: one.get_state() for name, one in self._generators.items()},
            "passes": self.train.passes if self.train is not None else 0,
            "tested": self.tested.state_dict() if self.tested is not None else {},
        }
        with stopping.whole():
            self.checkpoints.save(held, self._loop, epoch)
            self._kept = (epoch + 1, self._count)
        self._saved = time.monotonic()

    def _restore(self, state: Mapping[str, Stateful]) -> int | None:
        """The first epoch to train, after what a checkpoint holds; None where it holds a later loop."""
        if not self._looked and self.checkpoints is not None:
            self._found = self.checkpoints.newest(self.device)
        self._looked = True
        found = self._found
        if found is None:
            return 0
        if self.method is not None:  # a later loop may start from what an earlier one trained
            self.method.load_state_dict(found["method"])
        if found["loop"] > self._loop:
            return None
        for name, one in state.items():
            one.load_state_dict(found["state"][name])
        for name, generator in self._generators.items():
            generator.set_state(found["generators"][name].cpu())
        if self.train is not None:
            self.train.passes = found["passes"]
        if self.tested is not None and found.get("tested"):
            self.tested.load_state_dict(found["tested"])
        set_random_state(found["random"])
        self._found = None
        self.resumed = int(found["epoch"]) + 1
        self._kept = (self.resumed, self._count)
        return self.resumed


def random_state() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain numbers."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Take up a state of `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
