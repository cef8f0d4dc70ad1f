"""Stored maps -> new records, without fitting again: other metrics, or the pixel rules of another paper.

A record whose run kept its maps (`save.maps`) is scored again with its own config.yaml, in which `metric.*`
and `method.paper_eval` alone may change: all else is what the maps were made with. The result is a record
beside it, with a fingerprint of its own; the old one stays. Other pixel rules are a row of their own in the
tables, named `paper_eval...`, as a run with them would be. Other metrics are the same row, whose newest
record counts: so names and limits add to what the old record has, and leave nothing out. Imports no torch.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import datetime
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import ExifTags, Image
from rich.console import Console
from yaml import YAMLError

from ad_bench import config, records
from ad_bench.datasets.dataset import DataSet
from ad_bench.datasets.images import decode
from ad_bench.errors import AdbenchError, DataError, ResultsError, UsageError, closest
from ad_bench.geometry import Geometry
from ad_bench.metrics.settings import MetricSettings
from ad_bench.records import CellId, Record
from ad_bench.runner.evaluation import score_cell
from ad_bench.runner.fingerprint import Fingerprints, digest
from ad_bench.runner.maps import AGAIN, KINDS, MAPS, read_maps
from ad_bench.runner.pictures import CURVES, write_curves
from ad_bench.runner.plan import method_geometry, protocol_groups
from ad_bench.runner.progress import Watch
from ad_bench.runner.scores import SCORES
from ad_bench.samples import Sample

SELECT = ("method", "dataset", "category", "protocol", "seed")
PLACES = ("paths.results", "paths.data", "paths.cache", "dataset.root")
RERUN = ("never", "always")
LISTS = ("aupro_limits", "spro_limits")  # of settings; as with names, what is asked for is added
METRIC, RULES = "metric", "method.paper_eval"
RULE_KEYS = ("size", "mask_interpolation", "mask_rule")
# What a record says of its evaluation, beside what belongs to the fit: made anew, never left over.
EVALUATED = (
    *("metrics", "intervals", "bootstrap", "operating_points", "bounds", "compat", "by_defect"),
    *("undefined", "thresholds", "pixels_seen", "warnings", "averaged"),
)
PNG_ORIENTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass
class Request:
    """What the words of the command ask for."""

    composed: DictConfig  # of the settings' words alone: their values, checked
    select: dict[str, tuple[str, ...]] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)  # the dotted keys that change, below metric and RULES
    rules: Any = None  # what replaces the whole of method.paper_eval, where RULES itself is among them
    roots: dict[str, str] = field(default_factory=dict)  # of data sets, as they become known
    rerun: str = "never"
    config_dirs: Sequence[Path] = ()

    @property
    def new_rules(self) -> bool:
        """Whether pixels are to be judged by other rules."""
        return any(key.startswith(RULES) for key in self.settings)


@dataclass
class Job:
    """One record to make from the maps of another."""

    source: Path  # the old record's folder
    old: Record
    id: CellId
    config: DictConfig
    tests: tuple[Sample, ...]
    scores: NDArray[np.float64]
    geometry: Geometry
    paper_eval: dict[str, Any] | None
    fit_hash: str
    evaluation_hash: str

    @property
    def fingerprint(self) -> str:
        """What the new record's folder is named by; as plan.Cell."""
        return digest([self.fit_hash, self.evaluation_hash])


def rescore_records(overrides: Sequence[str], config_dirs: Sequence[Path], dry_run: bool) -> int:
    """Score every chosen record with maps again; returns how many of them failed.

    One that fails does not stop the rest. What is there already is not done again (rerun=always does it).
    Raises UsageError for wrong words, and where no record fits them or none of those has maps.
    """
    request, root = read_words(overrides, config_dirs)
    console = Console(stderr=True)
    results = Path(request.composed.paths.results)
    found, unreadable = records.read_all(results)
    for text in unreadable:
        console.print(f"left out: {text}", highlight=False, markup=False, soft_wrap=True)
    chosen = _selected(found, request, results)
    if root is not None:
        if len({record["dataset"] for record in chosen}) > 1:
            raise UsageError(
                f"dataset.root={root} is one data set, the records are of several: add dataset=NAME"
            )
        request.roots = dict.fromkeys({record["dataset"] for record in chosen}, root)
    sources, without = _with_maps(chosen, request, results)
    if not sources:
        raise UsageError(_no_maps(without))
    for text in without[:5]:
        console.print(f"left out: {text}", highlight=False, markup=False, soft_wrap=True)
    jobs, done, problems = _jobs(sources, request, results)
    text = f"{len(sources)} records with maps: {len(jobs)} to rescore"
    text += f", {done} already done" * bool(done) + f", {len(without)} without maps" * bool(without)
    if dry_run:
        out = Console()
        for line in [*(f"would rescore  {job.id}  {job.fingerprint}" for job in jobs), *problems, text]:
            out.print(line, highlight=False, markup=False, soft_wrap=True)
        return len(problems)
    console.print(text, highlight=False)
    records.sweep_leftovers(results)
    with Watch(len(jobs) + len(problems), console) as watch:
        for line in problems:
            watch.cell_done(line)
        failed = len(problems)
        for job in jobs:
            try:
                said = _rescore(job, results, request.rerun, watch.begin)
            except Exception as error:  # neither a bug nor too little memory stops the others
                said, failed = _failure(error), failed + 1
            watch.cell_done(f"{job.id}: {said}")
    counts = {"already done": done, "failed": failed, "rescored": len(jobs) + len(problems) - failed}
    console.print(", ".join(f"{n} {what}" for what, n in counts.items() if n), highlight=False)
    return failed


def _jobs(
    sources: Iterable[tuple[Path, Record]], request: Request, results: Path
) -> tuple[list[Job], int, list[str]]:
    """What is to be done, how many are done already, and a line for each that cannot be."""
    datasets: dict[str, DataSet] = {}
    jobs: dict[Path, Job] = {}
    problems: list[str] = []
    done = 0
    for folder, record in sources:
        try:
            job = _job(folder, record, request, datasets)
        except Exception as error:  # a user's data set that cannot be imported must not stop the others
            problems.append(f"{_id(record)}: {_failure(error)}")
            continue
        there = records.find(results, job.id, job.fingerprint)
        if there and there["status"] == "done" and request.rerun != "always":
            done += 1
        else:
            jobs.setdefault(job.id.folder(results) / job.fingerprint, job)
    return list(jobs.values()), done, problems


def _failure(error: Exception) -> str:
    """What went wrong in a line, and where, if it is nothing that a user can mend."""
    text = f"FAILED: {type(error).__name__}: {error}"
    if isinstance(error, AdbenchError):
        return text
    return "\n".join([text, "".join(traceback.format_exception(error)[-8:]).rstrip()])


def read_words(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> tuple[Request, str | None]:
    """The command's words by what they mean, and dataset.root; UsageError for those that mean nothing."""
    select: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    settings: list[str] = []
    places: dict[str, str] = {}
    rerun = "never"
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"cannot read '{word}': expected key=value, such as method=patchcore")
        if key in SELECT:
            select[key] = tuple(part.strip() for part in value.strip("[]").split(",") if part.strip())
        elif key in PLACES:
            places[key] = value
        elif key == "rerun":
            rerun = value
        elif key in (METRIC, RULES) or key.startswith((f"{METRIC}.", f"{RULES}.")):
            words.append(word)
            settings.append(key)
        else:
            raise UsageError(_means_nothing(word, key))
    if rerun not in RERUN:
        raise UsageError(f"rerun={rerun}: expected {' or '.join(RERUN)}.{closest(rerun, RERUN)}")
    # Any method of the package serves to read the settings with: those of the records are their own.
    ways = [f"{key}={value}" for key, value in places.items() if key != "dataset.root"]
    composed = config.compose(["method=mean_image", *words, *ways], config_dirs)
    request = Request(composed, select, settings, rerun=rerun, config_dirs=config_dirs)
    if RULES in settings:
        request.rules = _rules(composed.method.paper_eval, config_dirs)
    elif request.new_rules:
        _check_rules(_plain(composed.method.paper_eval))
    MetricSettings.from_config(_plain(composed.metric))  # refuses what it does not know
    return request, places.get("dataset.root")


def _means_nothing(word: str, key: str) -> str:
    known = (*SELECT, *PLACES, "rerun", METRIC, RULES)
    if key.lstrip("+~").partition(".")[0] in ("method", "dataset", "protocol", "backbone"):
        return (
            f"'{word}': the stored maps were made with the {key} of their run, another needs a new fit:"
            f" adbench run {word} save.maps=true. rescore changes metric.* and method.paper_eval alone"
        )
    return f"'{word}' means nothing to rescore.{closest(key, known, 'Known: ' + ', '.join(known))}"


def _rules(value: Any, config_dirs: Sequence[Path]) -> dict[str, Any] | None:
    """`paper_eval` as a mapping; a name stands for that method's. UsageError where it is incomplete."""
    if isinstance(value, str):
        known = config.options("method", config_dirs)
        if value not in known:
            hint = closest(value, known, f"Known: {', '.join(known)}")
            raise UsageError(f"{RULES}={value}: neither a mapping nor a method.{hint}")
        value = config.compose([f"method={value}"], config_dirs).method.get("paper_eval")
    rules = _plain(value)
    _check_rules(rules)
    return rules


def _check_rules(rules: dict[str, Any] | None) -> None:
    if rules is None:
        return
    unknown = [key for key in rules if key not in RULE_KEYS]
    absent = [key for key in RULE_KEYS[1:] if key not in rules]
    if unknown or absent:
        wrong = (
            f"no key '{unknown[0]}'.{closest(str(unknown[0]), RULE_KEYS)}"
            if unknown
            else f"lacks {absent[0]}"
        )
        raise UsageError(f"{RULES} {wrong}; it holds {', '.join(RULE_KEYS)}, or is null")
    # The geometry knows the rules' names, and refuses others in its own words.
    Geometry().forward_mask(np.zeros((1, 1), bool), rules["mask_rule"], rules["mask_interpolation"])


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _id(record: Record) -> CellId:
    return CellId(
        record["dataset"],
        record["category"],
        record["method"],
        record.get("variant") or "",
        record["protocol"],
        int(record["seed"]),
    )


def _selected(found: Iterable[Record], request: Request, results: Path) -> list[Record]:
    """The records that a fit of ours left and that the words name."""
    ours = [r for r in found if isinstance((r.get("fingerprint") or {}).get("fit"), str)]
    if not ours:
        raise UsageError(
            f"no records of runs in {results / 'cells'}; adbench run ... save.maps=true makes them"
        )
    for key, wanted in request.select.items():
        if wanted == ("all",):
            continue
        known = {name for record in ours for name in _names(record, key)}
        for name in wanted:
            if name not in known:
                hint = closest(name, known, f"There are: {', '.join(sorted(known))}")
                raise UsageError(f"{key}={name}: no record in {results} has that.{hint}")
    chosen = [
        record
        for record in ours
        if all(
            wanted == ("all",) or _names(record, key) & set(wanted) for key, wanted in request.select.items()
        )
    ]
    if not chosen:
        words = " ".join(f"{key}={','.join(wanted)}" for key, wanted in request.select.items())
        raise UsageError(f"no record in {results} fits {words}; each of these words alone fits some")
    return chosen


def _names(record: Record, key: str) -> set[str]:
    """What a record may be called by: `protocol=noisy` means noisy-0.1 and noisy-0.1-overlap too."""
    value = str(record[key])
    return {value, value.partition("-")[0]} if key == "protocol" else {value}


def _with_maps(
    chosen: Iterable[Record], request: Request, results: Path
) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Folder and record to start from, one a cell; and a line for each cell that has none.

    The newest record with maps, and only if the newest of all comes from the same fit: what a newer fit
    replaced must not come back as the newest record. With new pixel rules, rows that an earlier rescoring
    made by other rules are left out: they repeat the row that they came from.
    """
    cells: dict[CellId, list[Record]] = {}
    for record in chosen:
        row = (record.get("rescored") or {}).get("variant", record.get("variant") or "")
        if not (request.new_rules and row != (record.get("variant") or "")):
            cells.setdefault(_id(record), []).append(record)
    sources, without = [], []
    for ident, of_cell in cells.items():
        of_cell.sort(key=lambda r: str(r.get("date") or ""))  # stable: the last in path order among equals
        newest = of_cell[-1]
        with_maps = [
            (folder, record)
            for record in of_cell
            if record["status"] == "done"
            and ((folder := ident.folder(results) / record["fingerprint"]["cell"]) / MAPS).is_file()
        ]
        usable = [pair for pair in with_maps if pair[1]["fingerprint"]["fit"] == newest["fingerprint"]["fit"]]
        if usable:
            sources.append(usable[-1])
        else:
            old = " (an older fit has, its newest record counts)" if with_maps else ""
            without.append(f"{ident} has no stored maps{old}")
    return sources, without


def _no_maps(without: Sequence[str]) -> str:
    if not without:
        return "nothing to rescore: the records that these words name were themselves rescored by other rules"
    others = f", and {len(without) - 1} others neither" if len(without) > 1 else ""
    return f"{without[0]}{others}: {AGAIN}"


def _job(folder: Path, record: Record, request: Request, datasets: dict[str, DataSet]) -> Job:
    """All about one new record but its metrics. Raises AdbenchError where files do not fit the old one."""
    composed = _config(folder)
    _apply(composed, request, record)
    dataset = _dataset(composed, request, datasets)
    tests, scores = _tests(folder, dataset, record["category"])
    geometry, paper_eval = method_geometry(composed)
    if request.new_rules:
        _check_rules(paper_eval)
    notes = _notes(composed, dataset, record)
    ident = dataclasses.replace(
        _id(record), variant=_variant(record.get("variant") or "", record.get("paper_eval"), paper_eval)
    )
    return Job(
        folder,
        record,
        ident,
        composed,
        tests,
        scores,
        geometry,
        paper_eval,
        record["fingerprint"]["fit"],
        Fingerprints().evaluation(composed, tests, geometry, paper_eval, notes),
    )


def _config(folder: Path) -> DictConfig:
    path = folder / "config.yaml"
    try:
        loaded = OmegaConf.load(path)
        for key in ("method", "dataset", "metric", "runtime", "protocol.groups"):
            if OmegaConf.select(loaded, key) is None:
                raise ResultsError(f"{path} lacks {key}: it is not what the run wrote; {AGAIN}")
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}; {AGAIN}") from error
    return cast(DictConfig, loaded)


def _apply(node: DictConfig, request: Request, record: Record) -> None:
    """Put the settings that the words name into a record's config; keys that it lacks get their defaults."""
    own = _plain(node.metric)
    if METRIC in request.settings:
        node.metric = copy.deepcopy(_plain(request.composed.metric))
    else:
        node.metric = OmegaConf.merge(_plain(request.composed.metric), node.metric)
    for key in request.settings:
        if key.startswith(f"{METRIC}."):
            OmegaConf.update(node, key, _plain(OmegaConf.select(request.composed, key)), merge=False)
    for key in LISTS:
        node.metric[key] = list(dict.fromkeys([*(own.get(key) or ()), *(node.metric[key] or ())]))
    if node.metric.names:
        has = dict.fromkeys(name for values in record["metrics"].values() for name in values)
        more = [name for name in node.metric.names if name not in has]
        node.metric.names = [*has, *more] if more else own.get("names")
    if RULES in request.settings:
        node.method.paper_eval = request.rules
    for key in request.settings:
        if key.startswith(f"{RULES}."):
            if node.method.get("paper_eval") is None:
                node.method.paper_eval = {}
            OmegaConf.update(node, key, _plain(OmegaConf.select(request.composed, key)), merge=False)


def _dataset(node: DictConfig, request: Request, known: dict[str, DataSet]) -> DataSet:
    """The data set of a record where it lies on this machine, which its config does not say."""
    name = str(node.dataset.id)
    if name not in request.roots:
        request.roots[name] = _root(name, request)
    content = cast(DictConfig, OmegaConf.merge(node.dataset, {"root": request.roots[name]}))
    return known.setdefault(str(_plain(content)), DataSet.from_config(content))


def _root(name: str, request: Request) -> str:
    paths = request.composed.paths
    if name not in config.options("dataset", request.config_dirs):
        return str(Path(paths.data) / name)
    places = [f"paths.{key}={paths[key]}" for key in ("data", "cache")]
    words = ["method=mean_image", f"dataset={name}", *places]
    return str(config.compose(words, request.config_dirs).dataset.root)


def _tests(folder: Path, dataset: DataSet, category: str) -> tuple[tuple[Sample, ...], NDArray[np.float64]]:
    """The samples that were scored, in the order of samples.csv, as the disk has them now, and their scores.

    Raises DataError, naming the first image that is gone or has another label or defect by now.
    """
    path = folder / SCORES
    there = {sample.name: sample for sample in dataset.samples(category) if sample.split == "test"}
    tests, scores = [], []
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                label, score = int(row["label"]), float(row["score"])
                sample = there.get(row["path"])
                if sample is None:
                    raise DataError(
                        f"{row['path']} was scored but is now no test image of {dataset.id} below"
                        f" {dataset.root}; bring it back, or point paths.data or dataset.root at the old data"
                    )
                if (sample.label, sample.defect) != (label, row["defect"]):
                    raise DataError(
                        f"{sample.name} was scored as label {label} ({row['defect']}) and is label"
                        f" {sample.label} ({sample.defect}) below {dataset.root} now; {AGAIN}"
                    )
                tests.append(sample)
                scores.append(score)
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"cannot read {path}: {type(error).__name__}: {error}; {AGAIN}") from error
    if not tests or not np.isfinite(scores).all():
        raise ResultsError(f"{path} has {len(tests)} scores, not all of them finite numbers; {AGAIN}")
    return tuple(tests), np.array(scores)


def _notes(node: DictConfig, dataset: DataSet, record: Record) -> dict[str, object]:
    """What the protocol noted of its draw, which the fingerprint covers; a record has the fit's notes too."""
    category, noted = record["category"], record.get("notes") or {}
    groups = protocol_groups(node, {category: dataset.samples(category)}, int(record["seed"]))
    keys = {key for group in groups if category in group.tests for key in group.notes}
    return {key: noted[key] for key in keys if key in noted}


def _variant(old: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """The row's name: with other pixel rules it gets those that differ, as in a run with them."""
    if after is None:
        changed = {} if before is None else {"paper_eval": "null"}
    else:
        changed = {
            f"paper_eval.{key}": "null" if value is None else str(value)
            for key, value in after.items()
            if before is None or before.get(key) != value
        }
    parts = dict.fromkeys(re.split(r",(?=[\w.]+=)", old), "") if old else {}
    named = {part.partition("=")[0]: part for part in parts}
    named |= {key: f"{key}={value}" for key, value in changed.items()}
    return ",".join(part for _, part in sorted(named.items()))


def _rescore(job: Job, results: Path, rerun: str, tick: Callable[[str], object]) -> str:
    """Make one record; returns what it says in a line."""
    tick(f"read maps of {job.id}")
    maps, kind = read_maps(job.source / MAPS, [sample.name for sample in job.tests])
    sizes = [original_size(sample.image) for sample in job.tests]
    start = time.perf_counter()
    rules, metric = job.paper_eval, job.config.metric
    average = job.old.get("averaged", ())  # the protocol's choice, not a setting of the metrics
    scored = score_cell(job.tests, job.scores, maps, sizes, job.geometry, rules, metric, tick, average)
    facts = scored.facts()
    record = _record(job, facts, kind, time.perf_counter() - start)
    with records.writing(results, job.id, job.fingerprint, rerun == "always") as folder:
        for path in job.source.iterdir():
            if path.name not in ("record.json", "config.yaml", CURVES):
                _link(path, folder / path.name)
        write_curves(folder, scored.curves)
        (folder / "config.yaml").write_text(_portable(job.config), encoding="utf-8")
        records.write_json(folder / "record.json", record)
    values = record["metrics"]["image"] | record["metrics"].get("paper", record["metrics"]["full"])
    shown = {"image AUROC": values.get("image_auroc"), "pixel AUROC": values.get("pixel_auroc")}
    text = ", ".join(
        f"{name} {value:.4f}" for name, value in shown.items() if value is not None and value == value
    )
    return f"{text or 'done'} ({record['timing']['evaluate_seconds']:.1f} s)"


def _record(job: Job, facts: dict[str, Any], kind: str, seconds: float) -> Record:
    old = job.old
    record = {key: value for key, value in old.items() if key in facts or key not in EVALUATED}
    stored = [f"rescored from maps stored as {kind}"] if kind == KINDS[0] else []  # float32 loses nothing
    now = datetime.datetime.now(datetime.UTC)
    with suppress(KeyError, TypeError, ValueError):
        # The newest record of a cell counts, also where the old one's clock ran ahead of this one.
        now = max(now, datetime.datetime.fromisoformat(old["date"]) + datetime.timedelta(seconds=1))
    date = now.isoformat(timespec="seconds")
    earlier = old.get("rescored") or {}
    return record | {
        "variant": job.id.variant,
        "fingerprint": {
            "cell": job.fingerprint,
            "fit": job.fit_hash,
            "evaluation": job.evaluation_hash,
        },
        "paper_eval": job.paper_eval,
        "marks": list(dict.fromkeys([*(old.get("marks") or ()), *stored])),
        "date": date,
        **facts,
        "timing": {**(old.get("timing") or {}), "evaluate_seconds": seconds},
        "rescored": {
            "date": date,
            "from": old["fingerprint"]["cell"],
            "dtype": kind,
            "variant": earlier.get("variant", old.get("variant") or ""),  # of the run
            "fitted": earlier.get("fitted", old.get("date")),
        },
    }


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _portable(node: DictConfig) -> str:
    """The config as a run writes it; it came without the folders of a machine."""
    return OmegaConf.to_yaml(OmegaConf.create(_plain(node)))


def original_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image as `decode` would give it, from the file's header where that says it all."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width == height:
                return height, width
            if image.format == "PNG":
                # Its orientation may stand behind the pixels, where Pillow finds it only after decoding them.
                content = path.read_bytes()
                if not any(mark in content for mark in PNG_ORIENTATION):
                    return height, width
            if image.format == "JPEG":
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                return (width, height) if turned else (height, width)
    except Exception:  # damaged: decode says how
        pass
    pixels = decode(path)
    return pixels.shape[0], pixels.shape[1]
