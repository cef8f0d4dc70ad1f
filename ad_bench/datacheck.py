"""`adbench data`: is a data set there, whole, decoded; where to get it; what it looks like."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from ad_bench import config
from ad_bench.config import Choice
from ad_bench.errors import AdbenchError, CategoryMissing, DataError, UsageError

if (
    TYPE_CHECKING
):  # NumPy, Pillow and Hydra come when work starts: `adbench list datasets` needs `finder` alone
    from ad_bench.datasets.check import CheckReport
    from ad_bench.datasets.dataset import DataSet

SHOWN = 12  # lines of one kind for a category; --json has all


def _choice(overrides: Sequence[str], dirs: Sequence[Path]) -> tuple[Choice, DataSet]:
    from ad_bench.datasets.dataset import DataSet

    words = list(overrides)
    if not any(word.startswith("method=") for word in words):
        words.append("method=patchcore")  # its geometry is the field's usual one
    found = config.choices(words, dirs)
    if len(found) != 1:
        raise UsageError("adbench data takes one data set and one method at a time")
    return found[0], DataSet.from_config(found[0].config.dataset)


def _categories(choice: Choice, dataset: DataSet) -> list[str]:
    """The categories that are meant: those named, which must be known, or all of this disk."""
    for category in choice.categories:
        if category not in dataset.categories:
            dataset.samples(category)  # refuses it, with the closest names
    return list(choice.categories or dataset.available())


def _say(*lines: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)


def check(overrides: Sequence[str], dirs: Sequence[Path], deep: bool, as_json: bool) -> bool:
    """Print what was found of every category; True where nothing is wrong with what is there."""
    from ad_bench.datasets.check import check_category, unused_masks
    from ad_bench.datasets.files import described
    from ad_bench.runner.progress import Watch

    choice, dataset = _choice(overrides, dirs)
    answer: dict[str, Any] = {"id": dataset.id, "title": dataset.title, "root": str(dataset.root)}
    answer |= {key: dataset.facts.get(key) for key in ("licence", "download", "size")}
    try:
        categories = _categories(choice, dataset)
        if not categories:
            raise DataError(f"no category of {dataset.id} in {dataset.root} ({described(dataset.root)})")
    except DataError as error:
        if as_json:
            print(json.dumps({**answer, "ok": False, "error": str(error)}, indent=1, ensure_ascii=False))
        else:
            _say(f"absent {dataset.id}: {error}", *_source(dataset))
        return False
    with Watch(len(categories)) as watch:
        reports = [check_category(dataset, category, deep, watch.track) for category in categories]
    unused = unused_masks(dataset, categories)
    # Where the published counts are met, a mask without an image was published like that.
    vouched = all(report.ok and report.expected for report in reports)
    good = all(report.ok for report in reports) and (vouched or not unused)
    absent = [category for category in dataset.categories if category not in dataset.available()]
    if as_json:
        answer |= {"ok": good, "deep": deep, "absent": absent, "masks_without_image": unused}
        answer["categories"] = [_plain(report) for report in reports]
        print(json.dumps(answer, indent=1, ensure_ascii=False))
        return good
    for report in reports:
        _say(*_lines(dataset, report))
    if unused:
        mark = "note" if vouched else "WRONG"
        _say(f"{mark:6} {dataset.id}: {len(unused)} masks without an image", *_some(unused))
    if absent:
        _say(f"absent {dataset.id}: {', '.join(absent)} not below {dataset.root}", *_source(dataset))
    return good


def _lines(dataset: DataSet, report: CheckReport) -> Iterator[str]:
    from ad_bench.datasets.check import twin_lines

    mark = "absent" if report.absent else "ok" if report.ok else "WRONG"
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.found.items())
    if report.ok and not report.expected:
        counts += " (no published counts to compare with)"
    yield f"{mark:6} {dataset.id}/{report.category}: {counts}".rstrip(": ")
    yield from _some(report.problems)
    warnings, notes = twin_lines(report.twins)
    yield from _some([f"warning: {line}" for line in (*report.warnings, *warnings)])
    yield from _some([f"note: {line}" for line in notes])


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"       ... and {len(lines) - SHOWN} more; --json lists all"] if len(lines) > SHOWN else []
    return [f"       {line}" for line in lines[:SHOWN]] + more


def _plain(report: CheckReport) -> dict[str, Any]:
    """A report as JSON has it: with its verdict, and the twins sorted by what they mean."""
    plain = asdict(report) | {"ok": report.ok}
    del plain["twins"]
    return plain | {
        "train_and_test": [group.names for group in report.twins if group.leak],
        "normal_and_anomalous": [group.names for group in report.twins if group.contradiction],
        "repeated": [group.names for group in report.twins if not group.leak],
    }


def _source(dataset: DataSet) -> Iterator[str]:
    """Where a data set comes from and how it must lie, in lines."""
    facts = dataset.facts
    yield f"       licence: {facts.get('licence') or 'not stated'}"
    if facts.get("download"):
        size = f" ({facts['size']:g} GB)" if facts.get("size") else ""
        yield f"       from: {facts['download']}{size}"
    if facts.get("archives"):
        first = f", once {dataset.root} is moved away" if dataset.root.exists() else ""
        yield f"       adbench data fetch dataset={dataset.id} paths.data=DIR gets it{first}"
        return
    yield f"       to: {dataset.root}, with the layout of"
    lister = getattr(dataset.lister, "func", dataset.lister)
    layout = inspect.getdoc(sys.modules.get(lister.__module__)) or lister.__module__
    yield from (f"       | {line}".rstrip() for line in layout.splitlines())


def prepare(overrides: Sequence[str], dirs: Sequence[Path]) -> bool:
    """Decode every image of the categories once, for the geometry that the method asks for."""
    from ad_bench.datasets.store import open_store
    from ad_bench.runner.plan import method_geometry
    from ad_bench.runner.progress import Watch

    choice, dataset = _choice(overrides, dirs)
    categories = _categories(choice, dataset)
    geometry, _ = method_geometry(choice.config)
    cache = Path(choice.config.paths.cache)
    with Watch(2 * len(categories)) as watch:
        for category in categories:
            for split in ("train", "test"):
                part = [s for s in dataset.samples(category) if s.split == split]
                if not part:  # published without normal images: there is nothing to train on
                    continue
                watch.begin(f"decode {dataset.id}/{category} {split}", len(part))
                store = open_store(
                    part,
                    geometry,
                    cache,
                    choice.config.runtime.workers,
                    lambda done, total: watch.advance(done),
                )
                watch.cell_done(
                    f"{dataset.id}/{category} {split}: {len(store)} images {store.images.shape[1:3]}"
                )
    return True


def fetch(overrides: Sequence[str], dirs: Sequence[Path]) -> bool:
    """Download, verify and unpack a data set, then check it; False where it cannot be had or is not whole."""
    from ad_bench.datasets import fetch as fetching
    from ad_bench.datasets.download import Archive, digest

    choice, dataset = _choice(overrides, dirs)
    if choice.categories:
        raise UsageError("adbench data fetch gets whole data sets: leave category= out")
    if dataset.prepare is not None:
        _say(f"{dataset.id} is made on first use; there is nothing to fetch")
        return True
    archives = [
        Archive.from_config(entry, f"dataset.archives[{number}] of {dataset.id}")
        for number, entry in enumerate(dataset.facts.get("archives") or ())
    ]
    if fetching.taken(dataset.root):
        _say(f"{dataset.root} is there already: nothing was fetched. What it holds:")
        return check(overrides, dirs, deep=False, as_json=False)
    if not archives:
        _say(f"{dataset.title}: no direct link with a checksum is known; get it by hand", *_source(dataset))
        return False
    downloads = Path(str(choice.config.paths.data)).expanduser() / fetching.DOWNLOADS / dataset.id
    _say(f"{dataset.title}, licence: {dataset.facts.get('licence') or 'not stated'}")
    if dataset.facts.get("citation"):
        _say(f"cite: {dataset.facts['citation']}")
    with _stages() as stage:
        fetching.fetch(dataset.root, archives, downloads, stage)
    for archive in archives:
        if not (archive.sha256 or archive.md5):
            seen = digest(downloads / archive.file)
            _say(f"{archive.file}: no checksum is published; the sha256 of this one is {seen}")
    _say(f"{dataset.id} is at {dataset.root}; its archives stay in {downloads} and may be deleted")
    return check(overrides, dirs, deep=False, as_json=False)


@contextmanager
def _stages() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """What shows bytes come in: a bar for each stage on a terminal, a line elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def stage(text: str) -> Callable[[int, int | None], None]:
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)
            task = bars.add_task(text, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def show(overrides: Sequence[str], dirs: Sequence[Path], out: Path | None) -> bool:
    """Write a contact sheet of every category and print where; False where one could not be made."""
    from ad_bench.datasets.sheet import contact_sheet

    choice, dataset = _choice(overrides, dirs)
    categories = _categories(choice, dataset)
    good = True
    for category in categories:
        try:
            listed = dataset.samples(category)
        except DataError as error:
            print(f"adbench: {error}", file=sys.stderr)
            good = False
            continue
        title = dataset.title if len(dataset.categories) == 1 else f"{dataset.title}: {category}"
        sheet = contact_sheet(title, listed, choice.seeds[0])
        path = _sheet_path(out, dataset.id, category, len(categories) > 1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(path)
        except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
            raise UsageError(f"cannot write {path}: {error}; --out takes a PNG file or a folder") from error
        _say(str(path))
    return good


def _sheet_path(out: Path | None, dataset: str, category: str, several: bool) -> Path:
    name = category.replace("/", "_")
    if out is None or not out.suffix or out.is_dir():
        return (out or Path()) / (f"{dataset}_{name}.png" if name != dataset else f"{dataset}.png")
    return out.with_stem(f"{out.stem}_{name}") if several else out


def finder(data: str | None) -> Callable[[Mapping[str, Any]], int | None]:
    """What tells of a data set's YAML how many of its categories are below `data`; None where it cannot."""
    paths = OmegaConf.load(config.conf_dir() / "paths" / "default.yaml")
    if data:
        OmegaConf.update(paths, "data", data)

    def found(own: Mapping[str, Any]) -> int | None:
        if own.get("prepare"):
            return len(own.get("categories") or ())  # made on first use
        node = OmegaConf.create({"paths": paths, "dataset": dict(own)}).dataset
        try:
            root = Path(str(node.root)).expanduser()
            return _found(node) if root.is_dir() else 0
        except (OmegaConfBaseException, OSError):
            return None

    return found


def _found(node: Any) -> int | None:
    from hydra.errors import HydraException

    from ad_bench.datasets.dataset import DataSet

    try:
        dataset = DataSet.from_config(node)
        return sum(_there(dataset, category) for category in dataset.categories)
    except (AdbenchError, HydraException):
        return None


def _there(dataset: DataSet, category: str) -> bool:
    """Whether there is anything of a category, without listing all of it."""
    if len(dataset.categories) > 1 and (dataset.root / category).is_dir():
        return True
    try:
        next(iter(dataset.lister(dataset.root, category)), None)
    except CategoryMissing:
        return False
    except DataError:
        pass  # there, and damaged
    return True
