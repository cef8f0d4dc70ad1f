"""`adbench data`: is a data set there, whole, and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ad_bench import config
from ad_bench.config import Choice
from ad_bench.datasets.dataset import DataSet
from ad_bench.errors import UsageError


def _choice(overrides: Sequence[str], dirs: Sequence[Path]) -> tuple[Choice, DataSet, list[str]]:
    words = list(overrides)
    if not any(word.startswith("method=") for word in words):
        words.append("method=patchcore")  # its geometry is the field's usual one
    found = config.choices(words, dirs)
    if len(found) != 1:
        raise UsageError("adbench data takes one data set and one method at a time")
    dataset = DataSet.from_config(found[0].config.dataset)
    return found[0], dataset, list(found[0].categories or dataset.available())


def check(overrides: Sequence[str], dirs: Sequence[Path], deep: bool) -> bool:
    """Print what was found of every category; True where nothing is wrong with what is there."""
    choice, dataset, categories = _choice(overrides, dirs)
    console = Console(highlight=False, soft_wrap=True)
    good = True
    for category in categories:
        report = dataset.check(category, deep=deep)
        found = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.found.items())
        console.print(f"{'ok   ' if report.ok else 'WRONG'} {dataset.id}/{category}: {found}", markup=False)
        for line in report.problems:
            console.print(f"      {line}", markup=False)
        for line in report.warnings:
            console.print(f"      note: {line}", markup=False)
        good &= report.ok
    absent = [c for c in dataset.categories if c not in dataset.available()]
    if absent:
        console.print(f"not below {dataset.root}: {', '.join(absent)}", markup=False)
        download = choice.config.dataset.get("download")
        if download:
            console.print(f"get it from {download}", markup=False)
    return good and bool(categories)


def prepare(overrides: Sequence[str], dirs: Sequence[Path]) -> bool:
    """Decode every image of the categories once, for the geometry that the method asks for."""
    from ad_bench.datasets.store import open_store
    from ad_bench.runner.plan import method_geometry
    from ad_bench.runner.progress import Watch

    choice, dataset, categories = _choice(overrides, dirs)
    geometry, _ = method_geometry(choice.config)
    cache = Path(choice.config.paths.cache)
    with Watch(2 * len(categories)) as watch:
        for category in categories:
            for split in ("train", "test"):
                part = [s for s in dataset.samples(category) if s.split == split]
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
