"""One fit and its cells: images -> method -> scores and maps -> metrics -> records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from ad_bench.config import precision
from ad_bench.contract import Method
from ad_bench.datasets.images import decode
from ad_bench.datasets.store import ImageStore, open_store
from ad_bench.errors import ResultsError, TimeLimitError
from ad_bench.metrics.settings import MetricSettings
from ad_bench.parts.augmentation import augmented
from ad_bench.records import Record
from ad_bench.runner import features, stopping
from ad_bench.runner.best import Tested
from ad_bench.runner.describe import choose_device
from ad_bench.runner.evaluation import Scored, Values, score_cell
from ad_bench.runner.features import PeakMemory, Stopwatch
from ad_bench.runner.heap import keep_freed_memory
from ad_bench.runner.kept import build
from ad_bench.runner.outcome import Facts, Outcome, failure, write
from ad_bench.runner.plan import Cell, Fit
from ad_bench.runner.precision import allow, apply
from ad_bench.runner.progress import Watch
from ad_bench.runner.scoring import (
    Scorer,
    batch_size,
    check_finite,
    end_fit,
    flops,
    image_latency,
    predict_all,
)
from ad_bench.runner.training import Checkpoints, WatchedRun
from ad_bench.samples import Sample


@dataclass
class Tasks:
    """What the cells of a fit in stages scored after each task but the last, by category."""

    order: list[str]
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, Facts] = field(default_factory=dict)  # of cells that could not be scored then


@dataclass
class Fitted:
    """A method after its fit, and what the fit cost."""

    scorer: Scorer
    run: WatchedRun
    seconds: float
    batches: tuple[int, int] = (0, 0)  # whose features were looked up, and found
    tasks: Tasks | None = None  # under protocol=continual


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

    Raises UsageError for a device, precision or limit that means nothing, ResultsError where results or cache
    cannot be written, KeyboardInterrupt for a stop, whose text says what was kept of a training.
    """
    waiting, runtime = fit.waiting, fit.config.runtime
    device = choose_device(runtime.device)
    allow(precision(fit.config), device)
    stopping.check(runtime.max_minutes, runtime.grace_seconds)
    features.begin(fit)
    try:
        with stopping.limited(runtime.max_minutes, runtime.grace_seconds):
            _run(fit, waiting, device, watch)
    except (KeyboardInterrupt, ResultsError):
        raise
    except stopping.TimeUp as up:
        give_up(fit, _time_limit(fit, watch, up), watch)
    except BaseException as error:  # a method may even call sys.exit
        give_up(fit, error, watch)
    finally:  # here no frame of the fit is left: what it held goes before the next one begins
        end_fit()
    return [cell.done for cell in waiting if cell.done is not None]


def _run(fit: Fit, waiting: Sequence[Cell], device: torch.device, watch: Watch) -> None:
    """All of a fit's work; an exception leaves the cells that have no record to the caller."""
    if fit.group.skipped:
        for cell in waiting:
            write(fit, cell, {"status": "skipped", "reason": fit.group.skipped}, watch)
        return
    watch.work([cell.id for cell in waiting], Path(fit.config.paths.results), str(device))
    memory = PeakMemory(device)
    fitted = _train_tasks(fit, device, watch) if fit.group.stages else _train(fit, device, watch)
    for cell in waiting:
        try:
            _score(fit, cell, fitted, memory, watch)
        except ResultsError:
            raise
        except (KeyboardInterrupt, stopping.TimeUp) as stop:
            raise _with_kept(stop, fitted.run) from None
        except (Exception, SystemExit) as error:
            write(fit, cell, failure(error), watch)
        memory = PeakMemory(device)
    if kept := _checkpoints(fit):
        kept.remove()


def give_up(fit: Fit, error: BaseException, watch: Watch) -> list[Record]:
    """Record that the waiting cells have failed, without running anything."""
    facts = failure(error)
    return [write(fit, cell, facts, watch) for cell in fit.waiting]


def _time_limit(fit: Fit, watch: Watch, up: stopping.TimeUp) -> TimeLimitError:
    """What a record says of a limit; up: where it struck, its text says what was kept."""
    where = f" in: {watch.at}" if watch.at else ""
    kept = f"{str(up).capitalize()} is kept: " if str(up) else ""
    error = TimeLimitError(
        f"stopped after {fit.config.runtime.max_minutes:g} minutes (runtime.max_minutes){where}. {kept}"
        f"rerun=failed with a higher limit {'goes on from there' if kept else 'begins anew'}"
    )
    error.__cause__ = up
    return error


def _store(fit: Fit, samples: Sequence[Sample], watch: Watch, text: str) -> ImageStore:
    config = fit.config
    cache = Path(config.paths.cache) if config.store else None
    watch.begin(text, len(samples))
    return open_store(
        samples, fit.geometry, cache, config.runtime.workers, progress=lambda done, total: watch.advance(done)
    )


def _begin(fit: Fit, device: torch.device) -> None:
    keep_freed_memory()
    if fit.config.runtime.threads is not None:
        torch.set_num_threads(int(fit.config.runtime.threads))
    seed_everything(fit.seed, device)


def _built(fit: Fit, device: torch.device) -> Method:
    method = build(fit.config.method.model)
    apply(precision(fit.config), method)
    method.to(device)
    features.attach(method)
    return method


def _name(fit: Fit) -> str:
    return f"{fit.cells[0].id.row} on {fit.cells[0].id.dataset}/{fit.group.name}"


def _train(fit: Fit, device: torch.device, watch: Watch) -> Fitted:
    _begin(fit, device)
    group, name = fit.group, _name(fit)
    train = _train_set(fit, group.train, device, watch, f"read {name}", copies=group.train == group.support)
    if group.support and "support" in fit.config.method.needs:
        train.support = _train_set(fit, group.support, device, watch, f"read support of {name}", copies=True)
    method = _built(fit, device).train()
    scorer = _scorer(fit, method, device, watch)
    limit = fit.config.runtime.max_epochs
    tested = _tested(fit, scorer, watch)
    run = WatchedRun(fit.seed, device, watch, _checkpoints(fit), limit, tested, method, train)
    watch.begin(f"fit {name}")
    stopwatch = Stopwatch(device)
    try:
        method.fit(train, run)
    except (KeyboardInterrupt, stopping.TimeUp) as stop:
        raise _with_kept(stop, run) from None
    seconds = stopwatch.seconds()
    if run.resumed is not None:  # its seconds are those of the rest
        run.note(resumed_at_epoch=run.resumed)
    method.eval()
    return Fitted(scorer, run, seconds - (tested.seconds if tested else 0.0), stopwatch.batches())


def _with_kept(stop: BaseException, run: WatchedRun) -> BaseException:
    """The same stop, with what it leaves of a training as its text."""
    return type(stop)(run.kept()).with_traceback(stop.__traceback__)


def _scorer(fit: Fit, method: Method, device: torch.device, watch: Watch) -> Scorer:
    size = batch_size(fit.config.runtime, fit.config.method)
    together = bool(fit.config.method.get("transductive"))
    return Scorer(method, device, size, lambda text: watch.line(f"{_name(fit)}: {text}"), together)


def _tested(fit: Fit, scorer: Scorer, watch: Watch) -> Tested | None:
    """Scores on the way, where the paper's figure is the best test epoch; None where it is not."""
    wanted = int(fit.config.runtime.test_epochs)
    if not wanted or OmegaConf.select(fit.config.method, "paper.selection") != "best_test_epoch":
        return None

    def score() -> dict[str, Values]:
        return {cell.id.category: _score_so_far(fit, cell, scorer, watch) for cell in fit.waiting}

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
    method = _built(fit, device)
    run, seconds = WatchedRun(fit.seed, device, watch, None, limit), 0.0
    whole = Stopwatch(device)
    scorer = _scorer(fit, method, device, watch)
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
                metrics = _score_so_far(fit, cell, scorer, watch)
                tasks.history.setdefault(cell.id.category, []).append(_stage(number, task, metrics))
            except Exception as error:  # the other cells go on; this one fails when its turn comes
                tasks.failures.setdefault(cell.id.category, failure(error))
    return Fitted(scorer, run, seconds, whole.batches(), tasks)


def _stage(number: int, task: str, metrics: Values) -> dict[str, Any]:
    return {"stage": number, "trained": task, **metrics}


def _score_so_far(fit: Fit, cell: Cell, scorer: Scorer, watch: Watch) -> Values:
    """The metrics of a cell in the middle of the tasks: the values alone, without intervals."""
    config = fit.config
    settings = MetricSettings.from_config(OmegaConf.to_container(config.metric))  # type: ignore[arg-type]
    plain = replace(settings, replicates=0, compat=(), by_defect=False)
    store = _store(fit, cell.tests, watch, f"read {cell.id}")
    scores, maps = predict_all(scorer, store.images, cell.tests, _named(fit), watch, str(cell.id))
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
) -> features.Recurring:
    if samples:
        store = _store(fit, samples, watch, text)
        images, sizes = store.images, store.original_sizes
    else:  # zero_shot: nothing to learn from, but of a known size
        size = fit.geometry.output(decode(fit.waiting[0].tests[0].image).shape[:2])
        images, sizes = np.empty((0, *size, 3), np.uint8), np.empty((0, 2), np.int64)
    return features.Recurring(
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
    config, device, scorer = fit.config, fitted.run.device, fitted.scorer
    if fitted.tasks and cell.id.category in fitted.tasks.failures:
        return write(fit, cell, fitted.tasks.failures[cell.id.category], watch)
    store = _store(fit, cell.tests, watch, f"read {cell.id}")
    stopwatch = Stopwatch(device)
    scores, maps = predict_all(scorer, store.images, cell.tests, _named(fit), watch, str(cell.id))
    predict_seconds = stopwatch.seconds()
    asked, reused = map(sum, zip(fitted.batches, stopwatch.batches(), strict=True))
    check_finite(scores, maps, cell.tests)
    median, tail = image_latency(scorer.method, store.images, config, device)
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
    if asked:  # the seconds are those without it
        facts["timing"]["features_reused"] = reused / asked
    facts["warnings"] = [*facts["warnings"], *scorer.warnings]
    facts["memory"] = {"host_peak_bytes": memory.host(), "device_peak_bytes": memory.on_device()}
    return write(fit, cell, facts, watch, Outcome(scores, maps, scored, scorer.method))


def _named(fit: Fit) -> bool:
    return "category" in fit.config.method.needs


def _facts(fit: Fit, cell: Cell, fitted: Fitted, scored: Scored, size: tuple[int, int]) -> dict[str, Any]:
    method = fitted.scorer.method
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
            "flops": flops(method, size, fitted.run.device),
        },
    }
