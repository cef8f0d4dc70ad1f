"""One fit and its cells: images -> method -> scores and maps -> metrics -> records."""

from __future__ import annotations

import gc
import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ad_bench import records
from ad_bench.contract import Inputs, Method, Prediction
from ad_bench.datasets.images import decode
from ad_bench.datasets.store import ImageStore, open_store
from ad_bench.errors import AdbenchError, PredictionError, ResultsError
from ad_bench.metrics.settings import MetricSettings
from ad_bench.parts.augmentation import augmented
from ad_bench.records import Record
from ad_bench.runner.best import Tested
from ad_bench.runner.describe import choose_device, describe
from ad_bench.runner.evaluation import Scored, Values, score_cell
from ad_bench.runner.maps import MAPS, stored_as, write_maps
from ad_bench.runner.pictures import write_curves, write_pictures
from ad_bench.runner.plan import Cell, Fit
from ad_bench.runner.progress import Watch
from ad_bench.runner.scores import write_scores
from ad_bench.runner.timing import PeakMemory, Stopwatch, latency
from ad_bench.runner.training import Checkpoints, WatchedRun
from ad_bench.runner.trainset import StoredTrainSet, to_device
from ad_bench.samples import Sample


@dataclass
class Tasks:
    """What the cells of a fit in stages scored after each task but the last, by category."""

    order: list[str]
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)  # of cells that could not be scored then


@dataclass
class Fitted:
    """A method after its fit, and what the fit cost."""

    method: Method
    run: WatchedRun
    seconds: float
    tasks: Tasks | None = None  # under protocol=continual


@dataclass(frozen=True)
class Outcome:
    """What a finished cell keeps beside its record, as far as the settings want it."""

    scores: np.ndarray
    maps: list[np.ndarray] | None
    scored: Scored
    method: Method


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
        fitted = _train_tasks(fit, device, watch) if fit.group.stages else _train(fit, device, watch)
        for cell in waiting:
            try:
                written.append(_score(fit, cell, fitted, memory, watch))
            except ResultsError:
                raise
            except Exception as error:
                written.append(_failed(fit, cell, error, watch))
            memory = PeakMemory(device)
        if kept := _checkpoints(fit):
            kept.remove()
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


def _begin(fit: Fit, device: torch.device) -> None:
    if fit.config.runtime.threads is not None:
        torch.set_num_threads(int(fit.config.runtime.threads))
    seed_everything(fit.seed, device)


def _name(fit: Fit) -> str:
    return f"{fit.cells[0].id.row} on {fit.cells[0].id.dataset}/{fit.group.name}"


def _method(fit: Fit, device: torch.device) -> Method:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        method: Method = instantiate(fit.config.method.model)
    except InstantiationException as error:  # Hydra's wrapping hides which error it was
        raise error.__cause__ or error from None
    return method.to(device)


def _train(fit: Fit, device: torch.device, watch: Watch) -> Fitted:
    _begin(fit, device)
    group, name = fit.group, _name(fit)
    train = _train_set(fit, group.train, device, watch, f"read {name}", copies=group.train == group.support)
    if group.support and "support" in fit.config.method.needs:
        train.support = _train_set(fit, group.support, device, watch, f"read support of {name}", copies=True)
    method = _method(fit, device).train()
    limit = fit.config.runtime.max_epochs
    tested = _tested(fit, method, device, watch)
    run = WatchedRun(fit.seed, device, watch, _checkpoints(fit), limit, tested, method, train)
    watch.begin(f"fit {name}")
    stopwatch = Stopwatch(device)
    method.fit(train, run)
    seconds = stopwatch.seconds()
    if run.resumed is not None:  # its seconds are those of the rest
        run.note(resumed_at_epoch=run.resumed)
    return Fitted(method.eval(), run, seconds - (tested.seconds if tested else 0.0))


def _tested(fit: Fit, method: Method, device: torch.device, watch: Watch) -> Tested | None:
    """Scores on the way, where the paper's figure is the best test epoch; None where it is not."""
    wanted = int(fit.config.runtime.test_epochs)
    if not wanted or OmegaConf.select(fit.config.method, "paper.selection") != "best_test_epoch":
        return None

    def score() -> dict[str, Values]:
        return {cell.id.category: _score_so_far(fit, cell, method, device, watch) for cell in fit.waiting}

    return Tested(score, wanted)


def _checkpoints(fit: Fit) -> Checkpoints | None:
    """Where a training is kept until its records are written; None where the settings want none."""
    minutes = fit.config.runtime.checkpoint_minutes
    if minutes is None:
        return None
    return Checkpoints(Path(fit.config.paths.cache) / "checkpoints" / fit.cells[0].fit_hash, 60.0 * minutes)


def _train_tasks(fit: Fit, device: torch.device, watch: Watch) -> Fitted:
    """One method, fitted to one task after the other; each waiting cell seen so far is scored in between."""
    _begin(fit, device)
    name, stages = _name(fit), fit.group.stages
    tasks = Tasks([stage[0].category for stage in stages])
    # No checkpoints: between two tasks there are scores, which a state of the training does not hold.
    limit = fit.config.runtime.max_epochs
    method, run, seconds = _method(fit, device), WatchedRun(fit.seed, device, watch, None, limit), 0.0
    for number, (stage, task) in enumerate(zip(stages, tasks.order, strict=True), start=1):
        train = _train_set(fit, stage, device, watch, f"read {task} of {name}")
        watch.begin(f"fit {name}, task {number} of {len(stages)}: {task}")
        stopwatch = Stopwatch(device)
        method.train()
        method.fit(train, run)
        seconds += stopwatch.seconds()
        method.eval()
        seen = [cell for cell in fit.waiting if cell.id.category in tasks.order[:number]]
        for cell in seen if number < len(stages) else ():
            try:
                metrics = _score_so_far(fit, cell, method, device, watch)
                tasks.history.setdefault(cell.id.category, []).append(_stage(number, task, metrics))
            except Exception as error:  # the other cells go on; this one fails when its turn comes
                tasks.errors.setdefault(cell.id.category, error)
    return Fitted(method, run, seconds, tasks)


def _stage(number: int, task: str, metrics: Values) -> dict[str, Any]:
    return {"stage": number, "trained": task, **metrics}


def _score_so_far(fit: Fit, cell: Cell, method: Method, device: torch.device, watch: Watch) -> Values:
    """The metrics of a cell in the middle of the tasks: the values alone, without intervals."""
    config = fit.config
    settings = MetricSettings.from_config(OmegaConf.to_container(config.metric))  # type: ignore[arg-type]
    plain = replace(settings, replicates=0, compat=(), by_defect=False)
    store = _store(fit, cell.tests, watch, f"read {cell.id}")
    scores, maps = predict_all(method, store.images, cell.tests, config, device, watch, str(cell.id))
    check_finite(scores, maps, cell.tests)
    sizes = [(int(h), int(w)) for h, w in store.original_sizes]
    return score_cell(
        cell.tests, scores, maps, sizes, fit.geometry, fit.paper_eval, plain, average=fit.group.average
    ).metrics


def _forgetting(earlier: Sequence[dict[str, Any]], final: Values) -> Values:
    """By geometry and metric, the best earlier value minus the final one (IM-IAD); where both are defined."""
    found: Values = {}
    for where, values in final.items():
        for metric, value in values.items():
            before = [stage[where][metric] for stage in earlier]
            defined = [one for one in before if one == one]
            if defined and value == value:
                found.setdefault(where, {})[metric] = max(defined) - value
    return found


def _train_set(
    fit: Fit, samples: Sequence[Sample], device: torch.device, watch: Watch, text: str, copies: bool = False
) -> StoredTrainSet:
    if samples:
        store = _store(fit, samples, watch, text)
        images, sizes = store.images, store.original_sizes
    else:  # zero_shot: nothing to learn from, but of a known size
        size = fit.geometry.output(decode(fit.waiting[0].tests[0].image).shape[:2])
        images, sizes = np.empty((0, *size, 3), np.uint8), np.empty((0, 2), np.int64)
    return StoredTrainSet(
        samples,
        images,
        sizes,
        fit.geometry,
        device,
        int(fit.config.method.loader.batch_size),
        fit.seed,
        fit.config.method.needs,
        copies=partial(_copies, fit) if copies and fit.augment else None,
    )


def _copies(fit: Fit, image: np.ndarray) -> list[np.ndarray]:
    if fit.geometry.channel_order == "rgb":
        return augmented(image, fit.augment)
    return [one[..., ::-1] for one in augmented(image[..., ::-1], fit.augment)]


def _score(fit: Fit, cell: Cell, fitted: Fitted, memory: PeakMemory, watch: Watch) -> Record:
    config, device = fit.config, fitted.run.device
    if fitted.tasks and cell.id.category in fitted.tasks.errors:
        raise fitted.tasks.errors[cell.id.category]
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
    size = (int(store.images.shape[1]), int(store.images.shape[2]))
    facts = _facts(fit, cell, fitted, scored, size)
    facts["timing"] = {
        "fit_seconds": fitted.seconds,
        "predict_seconds": predict_seconds,
        "evaluate_seconds": stopwatch.seconds(),
        "images_per_second": len(cell.tests) / predict_seconds,
        "latency_ms_p50": median,
        "latency_ms_p95": tail,
    }
    facts["memory"] = {"host_peak_bytes": memory.host(), "device_peak_bytes": memory.on_device()}
    return _write(fit, cell, facts, watch, Outcome(scores, maps, scored, fitted.method))


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
        check_shape(prediction, len(part), type(method).__name__)
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


def check_shape(prediction: Prediction, count: int, name: str) -> None:
    """Raise PredictionError where a method answered in another shape than the contract's."""
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


def _facts(fit: Fit, cell: Cell, fitted: Fitted, scored: Scored, size: tuple[int, int]) -> dict[str, Any]:
    method = fitted.method
    state = list(method.state_dict().values())
    tasks: dict[str, Any] = {}
    if fitted.tasks is not None:
        earlier, order = fitted.tasks.history.get(cell.id.category, []), fitted.tasks.order
        tasks["history"] = [*earlier, _stage(len(order), order[-1], scored.metrics)]
        if earlier:  # the last task had no time to be forgotten
            tasks["forgetting"] = _forgetting(earlier, scored.metrics)
    tested = fitted.run.tested
    if tested is not None:
        tasks["best_on_test"] = tested.best(cell.id.category, scored.metrics)
    return {
        "status": "done",
        **scored.facts(),
        **tasks,
        "notes": {**fit.group.notes, **fitted.run.facts},
        "model": {
            "parameters": sum(p.numel() for p in method.parameters()),
            "bytes": sum(t.numel() * t.element_size() for t in state),
            "flops": _flops(method, size, fitted.run.device),
        },
    }


def _write(
    fit: Fit,
    cell: Cell,
    facts: dict[str, Any],
    watch: Watch,
    outcome: Outcome | None = None,
) -> Record:
    config = fit.config
    record = {**describe(fit, cell), **facts}
    if fit.group.stages:
        record["counts"]["train"] = sum(map(len, fit.group.stages))
    with records.writing(
        Path(config.paths.results), cell.id, cell.fingerprint, config.rerun != "never"
    ) as folder:
        (folder / "config.yaml").write_text(_portable_config(config), encoding="utf-8")
        if outcome is not None:
            _keep(folder, fit, cell, outcome, record)
        records.write_json(folder / "record.json", record)
    watch.cell_done(f"{cell.id}: {_summary(record)}")
    return record


def _keep(folder: Path, fit: Fit, cell: Cell, outcome: Outcome, record: Record) -> None:
    """Scores and curves always; maps, pictures and the model where the settings want them."""
    save, maps = fit.config.save, outcome.maps
    write_scores(folder, cell.tests, outcome.scores)
    write_curves(folder, outcome.scored.curves)
    if save.pictures:
        problem = write_pictures(folder, cell.tests, outcome.scores, maps, fit.geometry)
        if problem:  # hours of training are not lost for a picture
            record["warnings"] = [*record.get("warnings", ()), problem]
    kind = stored_as(save.maps)
    if kind and maps is not None:
        write_maps(folder / MAPS, [s.name for s in cell.tests], maps, kind)
    if save.model:
        from safetensors.torch import save_file

        state = outcome.method.state_dict()
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, folder / "model.safetensors"
        )


def _portable_config(config: Any) -> str:
    """The composed config without the folders of this machine."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("paths", None)
    for node in (plain["dataset"], plain["protocol"].get("source")):
        if isinstance(node, dict):
            node.pop("root", None)
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
