"""What there is: methods, data sets, metrics, protocols, backbones, suites. Reads YAML, imports no method."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from ad_bench import config, reference
from ad_bench.errors import UsageError, closest

Entry = dict[str, Any]
Found = Callable[[dict[str, Any]], int | None]  # a data set's YAML -> how many categories are on this disk


def _load(path: Path) -> dict[str, Any]:
    """A YAML file as written: its own keys, interpolations left alone."""
    with path.open(
        "rb"
    ) as file:  # by the C parser where there is one: OmegaConf.load takes ten times as long
        node = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {str(k): v for k, v in node.items()} if isinstance(node, dict) else {}


def _inherited(group: str, name: str, dirs: Sequence[Path]) -> dict[str, Any]:
    """A YAML with the files that its defaults list names below it (variants)."""
    own = _load(config.options(group, dirs)[name])
    merged: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            merged |= _inherited(group, parent, dirs)
    return merged | own


def methods(dirs: Sequence[Path] = ()) -> list[Entry]:
    """One entry for each method that can be run."""
    known = reference.methods()
    entries = []
    for name in config.options("method", dirs):
        own, row = _inherited("method", name, dirs), known.get(name, {})
        paper = own.get("paper") or {}
        entries.append(
            {
                "id": name,
                "title": own.get("title") or row.get("display_name") or name,
                "source": own.get("source", "ours"),
                "paper": paper.get("arxiv") or row.get("arxiv_or_doi"),
                "year": paper.get("year") or _year(row.get("venue_year", "")),
                "taxonomy": own.get("taxonomy") or row.get("taxonomy"),
                "needs": own.get("needs", []),
                "fidelity": own.get("fidelity"),
                "protocol": own.get("protocol", "full"),
            }
        )
    return entries


def _year(text: str) -> int | None:
    digits = [word for word in text.replace(",", " ").split() if word.isdigit() and len(word) == 4]
    return int(digits[-1]) if digits else None


def datasets(dirs: Sequence[Path] = (), found: Found | None = None) -> list[Entry]:
    """One entry for each data set with an adapter; `found` tells how many categories this disk has."""
    entries = []
    for name in config.options("dataset", dirs):
        own = _inherited("dataset", name, dirs)
        title = str(own.get("title") or name)
        entries.append(
            {
                "id": name,
                "title": name if "${" in title else title,
                "source": own.get("source", "ours"),
                "categories": len(own.get("categories") or []),
                "found": found(own) if found else None,
                "annotation": own.get("annotation"),
                "defined": own.get("defined"),
                "size": own.get("size"),
                "licence": own.get("licence"),
                "download": own.get("download"),
                "archives": len(own.get("archives") or []),
                "unverified": own.get("unverified") or [],
            }
        )
    return entries


def metrics(dirs: Sequence[Path] = ()) -> list[Entry]:
    """One entry for each metric."""
    from ad_bench.metrics import catalogue

    return [{"id": name, "source": "survey" if "auroc" in name or "aupr" in name else "ours", "title": text}
            for name, text in catalogue().items()]  # fmt: skip


def _named(group: str) -> Callable[[Sequence[Path]], list[Entry]]:
    def entries(dirs: Sequence[Path] = ()) -> list[Entry]:
        return [
            {"id": name, "source": "ours", "title": _comment(path)}
            for name, path in config.options(group, dirs).items()
        ]

    return entries


def _comment(path: Path) -> str:
    """The first comment of a YAML file says what it is for."""
    first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


LISTS: dict[str, Callable[[Sequence[Path]], list[Entry]]] = {
    "methods": methods,
    "datasets": datasets,
    "metrics": metrics,
    "protocols": _named("protocol"),
    "backbones": _named("backbone"),
    "suites": _named("suite"),
}


FOOTNOTE = """
here: categories below paths.data    metrics: for which the annotation suffices    GB: the download
*: adbench data fetch gets it    open: points that could not be verified, see adbench show dataset=NAME"""


def print_list(what: str, dirs: Sequence[Path], as_json: bool, found: Found | None = None) -> None:
    """Print one list as a table, or as one JSON array of objects. Raises UsageError for an unknown one."""
    if what not in LISTS:
        raise UsageError(f"adbench list {what}: expected {', '.join(LISTS)}.{closest(what, LISTS)}")
    entries = datasets(dirs, found) if what == "datasets" else LISTS[what](dirs)
    if as_json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    if what == "datasets":
        entries = [_row(entry) for entry in entries]
    console, table = Console(), Table(box=None, pad_edge=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    columns = list(entries[0]) if entries else []
    for column in columns:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for entry in entries:
        table.add_row(*(_cell(entry[column]) for column in columns))
    console.print(table)
    if what == "datasets":
        console.print(FOOTNOTE, markup=False, highlight=False)


def _row(entry: Entry) -> Entry:
    """A data set as the table has it: what fits on a line."""
    found, size = entry["found"], entry["size"]
    return {
        "id": entry["id"],
        "title": entry["title"],
        "source": entry["source"],
        "categories": entry["categories"],
        "here": "?" if found is None else f"{found} of {entry['categories']}" if found else None,
        "annotation": entry["annotation"],
        "metrics": entry["defined"],
        "GB": (f"{size:g}" if size else "?" if entry["archives"] else "") + "*" * bool(entry["archives"]),
        "licence": entry["licence"],
        "open": len(entry["unverified"]) or None,
    }


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


def print_choice(overrides: Sequence[str], dirs: Sequence[Path]) -> None:
    """Print the composed settings, the files they come from and the published figures of the method."""
    data_only = not any(word.startswith("method=") for word in overrides) and next(
        (word.partition("=")[2] for word in overrides if word.startswith("dataset=")), ""
    )
    choices = config.choices([*overrides, "method=random"] if data_only else overrides, dirs)
    console = Console(highlight=False, soft_wrap=True)
    for choice in choices:
        plain: Any = OmegaConf.to_container(choice.config, resolve=True)
        plain = {"dataset": plain["dataset"]} if data_only else plain
        console.print(OmegaConf.to_yaml(OmegaConf.create(plain)), markup=False)
        if data_only:
            console.print(f"# from {config.options('dataset', dirs)[data_only]}", markup=False)
            continue
        used = [config.options("method", dirs)[choice.method]]
        used += [path for name, path in config.options("dataset", dirs).items() if name == choice.dataset]
        for path in used:
            console.print(f"# from {path}", markup=False)
        for row in _published(choice.method):
            console.print(
                f"# published {row.metric} on {row.dataset}, {row.protocol}: {row.average} ({row.standing})",
                markup=False,
            )


def _published(method: str) -> list[reference.Published]:
    return [
        row
        for dataset in reference.datasets()
        for metric in ("image_auroc", "image_aupr", "pixel_auroc", "pixel_aupr")
        for row in reference.published(dataset, metric)
        if row.method == method and row.average is not None
    ]
