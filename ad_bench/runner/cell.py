"""One fit and its cells: images -> method -> scores and maps -> metrics -> records."""

from __future__ import annotations

import csv
import gc
import random
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ad_bench import records
from ad_bench.contract import Inputs, Method, Prediction, Run
from ad_bench.datasets.store import ImageStore, open_store
from ad_bench.errors import AdbenchError, PredictionError, ResultsError
from ad_bench.records import Record
from ad_bench.runner.describe import choose_device, describe
from ad_bench.runner.evaluation import Scored, score_cell
from ad_bench.runner.maps import MAPS, stored_as, write_maps
from ad_bench.runner.plan import Cell, Fit
from ad_bench.runner.progress import Watch
from ad_bench.runner.timing import PeakMemory, Stopwatch, latency
from ad_bench.runner.trainset import StoredTrainSet, to_device
from ad_bench.samples import Sample

T = TypeVar("T")


class WatchedRun(Run):
    """The runner's Run: progress on the screen, facts kept for the record."""

    def __init__(self, seed: int, device: torch.device, watch: Watch) -> None:
        super().__init__(seed, device)
        self.watch, self.facts = watch, {}  # type: Watch, dict[str, object]

    def track(self, items: Iterable[T], total: int | None = None, text: str = "") -> Iterator[T]:
        """See contract.Run."""
        return self.watch.track(items, total, text or "fit")

    def note(self, **facts: object) -> None:
        """See contract.Run."""
        self.facts |= facts


@dataclass
class Fitted:
    """A method after its fit, and what the fit cost."""

    method: Method
    run: WatchedRun
    seconds: float
    size: tuple[int, int]  # H, W of its inputs


def seed_everything(seed: int, device: torch.device) -> None:
    """The same numbers in every run; what a GPU still varies is stated in the README."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries draw from the old generator too
    torch.manual_seed(seed)
    if (
        device.type == "cuda"
    ):  # on CPU the operations are deterministic, and asking costs two seconds of imports
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def run_fit(fit: Fit, watch: Watch) -> list[Record]:
    """Fit once, score every waiting cell, write a record for each; a failure is a record too.

    Raises UsageError for a device that is not there, ResultsError where the results cannot be written.
    """
    waiting, written = fit.waiting, []
    device = choose_device(fit.config.runtime.device)
    try:
        if fit.group.skipped:
            for cell in waiting:
                written.append(_write(fit, cell, {"status": "skipped", "reason": fit.group.skipped}, watch))
            return written
        memory = PeakMemory(device)
        fitted = _train(fit, device, watch)
        for cell in waiting:
            try:
                written.append(_score(fit, cell, fitted, memory, watch))
            except ResultsError:
                raise
            except Exception as error:
                written.append(_failed(fit, cell, error, watch))
            memory = PeakMemory(device)
    except ResultsError:
        raise
    except Exception as error:
        written += [_failed(fit, cell, error, watch) for cell in waiting[len(written) :]]
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return written


def _store(fit: Fit, samples: Sequence[Sample], watch: Watch, text: str) -> ImageStore:
    config = fit.config
    cache = Path(config.paths.cache) if config.store else None
    watch.begin(text, len(samples))
    return open_store(
        samples, fit.geometry, cache, config.runtime.workers, progress=lambda done, total: watch.advance(done)
    )


def _train(fit: Fit, device: torch.device, watch: Watch) -> Fitted:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    config, group = fit.config, fit.group
    if config.runtime.threads is not None:
        torch.set_num_threads(int(config.runtime.threads))
    seed_everything(fit.seed, device)
    name = f"{fit.cells[0].id.row} on {fit.cells[0].id.dataset}/{group.name}"
    train = _train_set(fit, group.train, device, watch, f"read {name}")
    if group.support and "support" in config.method.needs:
        train.support = _train_set(fit, group.support, device, watch, f"read support of {name}")
    try:
        method: Method = instantiate(config.method.model)
    except InstantiationException as error:  # Hydra's wrapping hides which error it was
        raise error.__cause__ or error from None
    method.to(device).train()
    run = WatchedRun(fit.seed, device, watch)
    watch.begin(f"fit {name}")
    stopwatch = Stopwatch(device)
    method.fit(train, run)
    return Fitted(method.eval(), run, stopwatch.seconds(), train.size)


def _train_set(
    fit: Fit, samples: Sequence[Sample], device: torch.device, watch: Watch, text: str
) -> StoredTrainSet:
    store = _store(fit, samples, watch, text)
    return StoredTrainSet(
        samples,
        store.images,
        store.original_sizes,
        fit.geometry,
        device,
        int(fit.config.method.loader.batch_size),
        fit.seed,
        fit.config.method.needs,
    )


def _score(fit: Fit, cell: Cell, fitted: Fitted, memory: PeakMemory, watch: Watch) -> Record:
    config, device = fit.config, fitted.run.device
    store = _store(fit, cell.tests, watch, f"read {cell.id}")
    stopwatch = Stopwatch(device)
    scores, maps = predict_all(fitted.method, store.images, cell.tests, config, device, watch, str(cell.id))
    predict_seconds = stopwatch.seconds()
    check_finite(scores, maps, cell.tests)
    median, tail = _latency(fitted.method, store.images, config, device)
    watch.begin(f"evaluate {cell.id}")
    stopwatch = Stopwatch(device)
    sizes = [(int(h), int(w)) for h, w in store.original_sizes]
    scored = score_cell(
        cell.tests,
        scores,
        maps,
        sizes,
        fit.geometry,
        fit.paper_eval,
        config.metric,
        watch.begin,
        fit.group.average,
    )
    facts = _facts(fit, cell, fitted, scored)
    facts["timing"] = {
        "fit_seconds": fitted.seconds,
        "predict_seconds": predict_seconds,
        "evaluate_seconds": stopwatch.seconds(),
        "images_per_second": len(cell.tests) / predict_seconds,
        "latency_ms_p50": median,
        "latency_ms_p95": tail,
    }
    facts["memory"] = {"host_peak_bytes": memory.host(), "device_peak_bytes": memory.on_device()}
    return _write(fit, cell, facts, watch, scores=scores, maps=maps, method=fitted.method)


@torch.no_grad()
def predict_all(
    method: Method,
    images: np.ndarray,
    samples: Sequence[Sample],
    config: Any,
    device: torch.device,
    watch: Watch,
    text: str,
) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Scores (N,) and maps N of (h, w), float32, in the order of the samples."""
    size = int(config.runtime.get("batch_size") or config.method.loader.batch_size)
    named = "category" in config.method.needs
    scores: list[np.ndarray] = []
    maps: list[np.ndarray] | None = []
    watch.begin(f"predict {text}", len(samples))
    start = Stopwatch(torch.device("cpu"))
    for first in range(0, len(samples), size):
        part = samples[first : first + size]
        names = tuple(s.category if named else "" for s in part)
        prediction = method.predict(Inputs(to_device(images[first : first + size], device), names))
        _check_shape(prediction, len(part), type(method).__name__)
        scores.append(_numpy(prediction.scores))
        if prediction.maps is None:
            maps = None
        elif maps is not None:
            maps.extend(_numpy(prediction.maps))
        done = first + len(part)
        watch.advance(done, f"{done / start.seconds():.1f} images/s")
    return np.concatenate(scores), maps


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _check_shape(prediction: Prediction, count: int, name: str) -> None:
    scores, maps = prediction
    if scores.shape != (count,):
        raise PredictionError(f"{name}.predict returned scores {tuple(scores.shape)}; expected ({count},)")
    if maps is not None and (maps.ndim != 3 or len(maps) != count):
        raise PredictionError(f"{name}.predict returned maps {tuple(maps.shape)}; expected ({count}, h, w)")


def check_finite(scores: np.ndarray, maps: Sequence[np.ndarray] | None, samples: Sequence[Sample]) -> None:
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
def _latency(method: Method, images: np.ndarray, config: Any, device: torch.device) -> tuple[float, float]:
    """Milliseconds from a decoded image in memory to its scores on the host (median, 95th percentile)."""

    def once() -> None:
        prediction = method.predict(Inputs(to_device(images[:1], device), ("",)))
        prediction.scores.cpu()
        if prediction.maps is not None:
            prediction.maps.cpu()

    return latency(once, device, int(config.runtime.latency_repeats))


def _flops(method: Method, size: tuple[int, int], device: torch.device) -> int | None:
    """FLOPs of one image, a multiply-add counted as two; None where torch cannot count them."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            method.predict(Inputs(torch.zeros(1, 3, *size, device=device), ("",)))
    except Exception:
        return None
    return int(counter.get_total_flops())


def _facts(fit: Fit, cell: Cell, fitted: Fitted, scored: Scored) -> dict[str, Any]:
    method = fitted.method
    state = list(method.state_dict().values())
    return {
        "status": "done",
        **scored.facts(),
        "notes": {**fit.group.notes, **fitted.run.facts},
        "model": {
            "parameters": sum(p.numel() for p in method.parameters()),
            "bytes": sum(t.numel() * t.element_size() for t in state),
            "flops": _flops(method, fitted.size, fitted.run.device),
        },
    }


def _write(
    fit: Fit,
    cell: Cell,
    facts: dict[str, Any],
    watch: Watch,
    scores: np.ndarray | None = None,
    maps: list[np.ndarray] | None = None,
    method: Method | None = None,
) -> Record:
    config = fit.config
    record = {**describe(fit, cell), **facts}
    with records.writing(
        Path(config.paths.results), cell.id, cell.fingerprint, config.rerun != "never"
    ) as folder:
        if scores is not None:
            with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as handle:
                rows = csv.writer(handle)
                rows.writerow(["path", "label", "defect", "score"])
                rows.writerows(
                    [s.name, s.label, s.defect, repr(float(v))]
                    for s, v in zip(cell.tests, scores, strict=True)
                )
        (folder / "config.yaml").write_text(_portable_config(config), encoding="utf-8")
        kind = stored_as(config.save.maps)
        if kind and maps is not None:
            write_maps(folder / MAPS, [s.name for s in cell.tests], maps, kind)
        if config.save.model and method is not None:
            from safetensors.torch import save_file

            state = {k: v.detach().cpu().contiguous().clone() for k, v in method.state_dict().items()}
            save_file(state, folder / "model.safetensors")
        records.write_json(folder / "record.json", record)
    watch.cell_done(f"{cell.id}: {_summary(record)}")
    return record


def _portable_config(config: Any) -> str:
    """The composed config without the folders of this machine."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("paths", None)
    plain["dataset"].pop("root", None)
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _failed(fit: Fit, cell: Cell, error: Exception, watch: Watch) -> Record:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, torch.cuda.OutOfMemoryError):
        text += " (try a smaller method.loader.batch_size or input)"
    trace = "" if isinstance(error, AdbenchError) else "".join(traceback.format_exception(error)[-8:])
    described = {"type": type(error).__name__, "message": text, "traceback": trace}
    return _write(fit, cell, {"status": "failed", "error": described}, watch)


def _summary(record: Record) -> str:
    if record["status"] == "failed":
        return f"FAILED: {record['error']['type']}: {record['error']['message'].splitlines()[0]}"
    if record["status"] == "skipped":
        return f"skipped: {record['reason']}"
    metrics = record["metrics"]
    shown = {"image AUROC": metrics["image"].get("image_auroc")}
    shown["pixel AUROC"] = metrics.get("paper", metrics.get("full", {})).get("pixel_auroc")
    values = ", ".join(f"{k} {v:.4f}" for k, v in shown.items() if v is not None and v == v)
    timing = record["timing"]
    return f"{values} (fit {timing['fit_seconds']:.1f} s, {timing['images_per_second']:.1f} images/s)"
