"""A fitted method's scores and maps of decoded images, in the order they come, checked."""

from __future__ import annotations

import atexit
import errno
import gc
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ad_bench.contract import Inputs, Method, Prediction
from ad_bench.errors import PredictionError
from ad_bench.runner.features import recurring
from ad_bench.runner.progress import Watch
from ad_bench.runner.timing import Stopwatch, latency
from ad_bench.runner.trainset import to_device
from ad_bench.samples import Sample

Floats = NDArray[np.float32]


class Scorer:
    """Predictions as arrays; where memory runs out, of half as many images at once from then on."""

    def __init__(
        self,
        method: Method,
        device: torch.device,
        size: int,
        tell: Callable[[str], object] = lambda _: None,
        together: bool = False,
    ) -> None:
        self.method, self.device, self.size, self.tell = method, device, size, tell
        self.together = together  # the whole test set at once, see Method.predict_all
        self.warnings: list[str] = []  # for the record; one line at most, the last

    def __call__(self, images: NDArray[np.uint8], names: Sequence[str]) -> tuple[Floats, Floats | None]:
        """Images (B, H, W, 3) and their categories -> scores (B,) and maps (B, h, w) or None, float32.

        Raises PredictionError for an answer of another shape, and what says that one image is too much.
        """
        return arrays(self.start(images, names))

    @torch.no_grad()
    def start(self, images: NDArray[np.uint8], names: Sequence[str]) -> list[Prediction]:
        """The same, in parts and on the device, which may still be at work on them."""
        found: list[Prediction] = []
        first = 0
        while first < len(images):
            part = slice(first, first + self.size)
            if (prediction := self._tried(images[part], names[part])) is not None:
                found.append(prediction)
                first = part.stop
        return found

    def _tried(self, images: NDArray[np.uint8], names: Sequence[str]) -> Prediction | None:
        """A prediction; None where memory ran out and a smaller batch may do."""
        try:
            prediction = self.method.predict(self._inputs(images, names))
            check_shape(prediction, len(images), type(self.method).__name__)
            return prediction
        except (RuntimeError, MemoryError, OSError) as error:
            if not out_of_memory(error) or len(images) == 1:
                raise
            asked = _asked(error)
        # Here the error is gone, and with its traceback what the failed batch held.
        self._shrink(len(images), asked)
        return None

    @torch.no_grad()
    def all(
        self, images: NDArray[np.uint8], names: Sequence[str], advance: Callable[[int], object]
    ) -> list[tuple[Floats, Floats | None]]:
        """Scores and maps of a whole test set, batch by batch; after a failure for memory all begins anew."""
        while True:
            parts = [slice(first, first + self.size) for first in range(0, len(names), self.size)]

            def batches(parts: Sequence[slice] = parts) -> Iterator[Inputs]:
                for part in parts:
                    yield self._inputs(images[part], names[part])
                    advance(min(part.stop, len(names)))

            try:
                return self._answers(batches(), [len(names[part]) for part in parts])
            except (RuntimeError, MemoryError, OSError) as error:
                if not out_of_memory(error) or self.size == 1:
                    raise
                asked = _asked(error)
            self._shrink(self.size, asked)

    def _answers(
        self, batches: Iterator[Inputs], counts: Sequence[int]
    ) -> list[tuple[Floats, Floats | None]]:
        name, found = type(self.method).__name__, list[tuple[Floats, Floats | None]]()
        for prediction in self.method.predict_all(batches):
            if len(found) == len(counts):
                raise PredictionError(f"{name}.predict_all gave more answers than the {len(counts)} batches")
            check_shape(prediction, counts[len(found)], name)
            found.append(arrays([prediction]))
        if len(found) < len(counts):
            raise PredictionError(f"{name}.predict_all gave {len(found)} answers for {len(counts)} batches")
        return found

    def _inputs(self, images: NDArray[np.uint8], names: Sequence[str]) -> Inputs:
        return Inputs(recurring(to_device(images, self.device), images), tuple(names))

    def _shrink(self, size: int, asked: str) -> None:
        """From now on half of `size` images at once, and say so; asked: how much memory was wanted."""
        free_memory()
        self.size = size // 2
        text = (
            f"memory ran out with {size} images at once{asked}; from there on {self.size} were scored"
            " at once. No score depends on it, only the time (runtime.batch_size sets the number)"
        )
        self.warnings = [text]
        self.tell(text)


def _asked(error: BaseException) -> str:
    """How much more memory was wanted, where the error says it."""
    found = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
    return f" ({found[1]} more were wanted)" if found else ""


def predict_all(
    scorer: Scorer, images: NDArray[np.uint8], samples: Sequence[Sample], named: bool, watch: Watch, text: str
) -> tuple[Floats, list[Floats] | None]:
    """Scores (N,) and maps N of (h, w), float32, in the order of the samples.

    named: whether the method is told each sample's category.
    """
    scores: list[Floats] = []
    maps: list[Floats] | None = []
    watch.begin(f"predict {text}", len(samples))
    start = Stopwatch(torch.device("cpu"))

    def advance(done: int) -> None:
        watch.advance(done, f"{done / start.seconds():.1f} images/s")

    names = [sample.category if named else "" for sample in samples]
    if scorer.together:
        together = scorer.all(images, names, advance)
        each = [one for _, found_maps in together if found_maps is not None for one in found_maps]
        return np.concatenate([found for found, _ in together]), each if len(each) == len(names) else None
    asked = done = 0
    running: list[Prediction] = []
    while done < len(samples):
        part = slice(asked, asked + scorer.size)
        # Fetched only when the next batch is under way: a GPU never waits for the host.
        running, finished = scorer.start(images[part], names[part]), running
        asked += len(names[part])
        if not finished:
            continue
        found, found_maps = arrays(finished)
        scores.append(found)
        if found_maps is None:
            maps = None
        elif maps is not None:
            maps.extend(found_maps)
        done += len(found)
        advance(done)
    return np.concatenate(scores), maps


def batch_size(runtime: Any, method: Any) -> int:
    """How many images a run scores at once: what the user says, else the method's own."""
    return int(runtime.get("batch_size") or method.loader.batch_size)


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had too little memory; libraries raise many types for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = r"out of memory|not enough memory|(can't|cannot|failed to) allocate|_ALLOC_FAILED"
    return isinstance(error, RuntimeError) and re.search(words, str(error), re.IGNORECASE) is not None


def free_memory() -> None:
    """Give back what nothing refers to any more, the device's cache too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


SEARCH_ALL_EVERY = 64  # fits
_fits = 0


def end_fit() -> None:
    """`free_memory`, of what was made since the last fit.

    What outlives a fit (modules, the plan, records) is not searched again after each of the next: that takes
    a fifth of a second, more than a small fit. Now and then all of it is.
    """
    global _fits
    _fits += 1
    if _fits == 1:
        atexit.register(gc.unfreeze)  # else torch's compiler says at the end that it leaks
    if _fits % SEARCH_ALL_EVERY == 0:
        gc.unfreeze()
    free_memory()
    gc.freeze()


def arrays(predictions: Sequence[Prediction]) -> tuple[Floats, Floats | None]:
    """Scores (B,) and maps (B, h, w) or None of parts of a batch, on the host; waits for the device."""
    scores = np.concatenate([_numpy(scores) for scores, _ in predictions])
    maps = [_numpy(maps) for _, maps in predictions if maps is not None]
    if len(maps) < len(predictions):
        return scores, None
    return scores, maps[0] if len(maps) == 1 else np.concatenate(maps)


def _numpy(tensor: Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()


def check_shape(prediction: Prediction, count: int, name: str) -> None:
    """Raise PredictionError where a method answered in another shape than the contract's."""
    scores, maps = prediction
    if scores.shape != (count,):
        raise PredictionError(f"{name}.predict returned scores {tuple(scores.shape)}; expected ({count},)")
    if maps is not None and (maps.ndim != 3 or len(maps) != count):
        raise PredictionError(f"{name}.predict returned maps {tuple(maps.shape)}; expected ({count}, h, w)")


def check_finite(scores: Floats, maps: Sequence[Floats] | None, samples: Sequence[Sample]) -> None:
    """Raise PredictionError, naming the first image whose score or map is NaN or infinite."""
    for index, sample in enumerate(samples):
        if not np.isfinite(scores[index]):
            raise PredictionError(
                f"the anomaly score of {sample.name} is {scores[index]}; scores must be finite"
            )
        if maps is not None and not np.isfinite(maps[index]).all():
            bad = int((~np.isfinite(maps[index])).sum())
            raise PredictionError(
                f"{bad} of {maps[index].size} values of the anomaly map of {sample.name} are NaN or infinite"
            )


@torch.no_grad()
def image_latency(
    method: Method, images: NDArray[np.uint8], config: Any, device: torch.device
) -> tuple[float, float]:
    """Milliseconds from a decoded image in memory to its scores on the host (median, 95th percentile)."""

    def once() -> None:
        prediction = method.predict(Inputs(to_device(images[:1], device), ("",)))
        prediction.scores.cpu()
        if prediction.maps is not None:
            prediction.maps.cpu()

    return latency(once, device, int(config.runtime.latency_repeats))


def flops(method: Method, size: tuple[int, int], device: torch.device) -> int | None:
    """FLOPs of one image, a multiply-add counted as two; None where torch cannot count them."""
    image = torch.zeros(1, 3, *size, device=device)
    try:
        with torch.no_grad(), _Counting() as counting:
            method.predict(Inputs(image, ("",)))
    except Exception:
        return None
    return counting.flops


class _Counting(TorchDispatchMode):
    """Adds up the formulas of torch's own FlopCounterMode, which imports its compiler: two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first call imports the compiler to be left out by it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # what consists of others is counted as those
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=out))
        return out
