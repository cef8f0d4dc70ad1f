"""Reads the records of a results folder, builds every table, and writes or shows them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ad_bench import reference
from ad_bench.errors import ResultsError, UsageError, closest
from ad_bench.records import read_all, replace_text
from ad_bench.report import (
    claims,
    costs,
    defects,
    delimited,
    latex,
    leaderboard,
    markdown,
    page,
    ranking,
    reproduction,
    tidy,
)
from ad_bench.report.leaderboard import Place, places
from ad_bench.report.rows import Record, cell_key, entries, newest_only
from ad_bench.report.tables import SPECS, Table, build

if TYPE_CHECKING:
    from rich.console import Console

DEBUG = "debug"  # the mark of runs that use part of the data
log = logging.getLogger(__name__)


@dataclass
class Board:
    """All that a report shows: data set -> its four tables, its places on the leaderboard, its defects."""

    tables: dict[str, list[Table]] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)
    defects: dict[str, defects.ByDefect] = field(default_factory=dict)  # where records tell defects apart
    remarks: list[str] = field(default_factory=list)

    @property
    def titles(self) -> dict[str, str]:
        """Data set -> its name in print."""
        return {dataset: tables[0].dataset_title for dataset, tables in self.tables.items()}


def collect(results: Path, config_dirs: Sequence[Path] = ()) -> Board:
    """Everything there is to report of `results`. Raises UsageError where there is no usable record.

    An unreadable record is left out and named in `remarks` and in the log; so are runs marked `debug`.
    The categories of a data set are those of its YAML (the survey's on MVTec AD), else those that ran.
    """
    results = Path(results)
    stored, problems = read_all(results)
    records, broken = _well_formed(stored)
    board = Board(remarks=[f"Left out: {_relative(text, results)}" for text in [*problems, *broken]])
    for text in board.remarks:
        log.warning(text)
    kept = newest_only(r for r in records if DEBUG not in (r.get("marks") or ()))
    if not kept:
        raise UsageError(_nothing(results, len(records), len(stored) + len(problems)))
    for dataset in sorted({r["dataset"] for r in kept}):
        of_set = [r for r in kept if r["dataset"] == dataset]
        title, categories, groups = columns_of(dataset, of_set, config_dirs)
        remarks = _left_out(of_set, categories)
        count = sum(r["dataset"] == dataset for r in records if DEBUG in (r.get("marks") or ()))
        if count:
            remarks.append(f"Records of debug runs left out: {count}.")
        rows = entries(of_set, categories)
        if not rows:
            board.remarks += remarks
            continue
        board.tables[dataset] = [
            build(spec, dataset, title, rows, categories, remarks, groups) for spec in SPECS
        ]
        board.places[dataset] = places(rows, categories, groups)
        found = defects.by_defect(title, board.places[dataset], categories)
        if found:
            board.defects[dataset] = found
    return board


def write_report(
    results: Path,
    out: Path | None = None,
    datasets: list[str] | None = None,
    config_dirs: Sequence[Path] = (),
    board: Board | None = None,
    rank: str = "",
) -> list[Path]:
    """Write `tables/<dataset>/<table>.{csv,tex,md}` and `leaderboard.{csv,md}` below `out` (else `results`).

    Beside these `costs.{csv,tex,md}`, `reproduction.{csv,tex,md}` where a figure is published, and where
    records tell defects apart `by_defect.{csv,md}`; `claims.{csv,md}`; and
    `ranking/<metric>.{csv,md,svg,tex}` of the rows that `rank` names (else those of the largest comparison);
    and the page with its own files, `html/index.html`.
    The same records give the same bytes. `datasets` limits the tables, never the leaderboard; `board` is what
    `collect` returned, where it was called before. Returns the files in the order written; each is replaced
    in one step. Raises UsageError without records or for a data set without any, ResultsError on a full disk.
    """
    board = board or collect(results, config_dirs)
    home = Path(results if out is None else out)
    for name in datasets or ():
        if name not in board.tables:
            hint = closest(name, board.tables, f"There are: {', '.join(board.tables)}")
            raise UsageError(f"no records of data set '{name}' in {results}.{hint}")
    files: dict[Path, str] = {}
    judged = reproduction.verdicts(board)
    for dataset, tables in board.tables.items():
        if datasets and dataset not in datasets:
            continue
        for table in tables:
            stem = home / "tables" / dataset / table.spec.name
            files[stem.with_suffix(".csv")] = delimited.table_csv(table)
            files[stem.with_suffix(".tex")] = latex.table_latex(table)
            files[stem.with_suffix(".md")] = markdown.table_markdown(table)
        folder, title, total = home / "tables" / dataset, tables[0].dataset_title, len(tables[0].categories)
        files |= reproduction.files(folder, title, [v for v in judged if v.dataset == dataset], total)
        files |= costs.files(folder, title, board.places[dataset])
        if dataset in board.defects:
            stem = home / "tables" / dataset / "by_defect"
            files[stem.with_suffix(".csv")] = defects.by_defect_csv(board.defects[dataset])
            files[stem.with_suffix(".md")] = defects.by_defect_markdown(board.defects[dataset])
    files[home / "leaderboard.csv"] = leaderboard.leaderboard_csv(board.places)
    files[home / "records.csv"] = tidy.records_csv(board.places)
    files[home / "leaderboard.md"] = page.leaderboard_markdown(board.places, board.titles, board.remarks)
    ranked, weighed = ranking.rankings(board, rank), claims.evidence(board, config_dirs)
    files |= ranking.files(ranked, board.titles, home)
    files |= claims.files(weighed, home)
    for path, text in files.items():
        try:
            replace_text(path, text)
        except OSError as error:
            raise ResultsError(
                f"cannot write {path}: {error.strerror}. Records and tables written before are intact;"
                " make room or name another folder and run adbench report again"
            ) from error
    from ad_bench.report.site import write_site  # reads what the runs left: nothing else of a report needs it

    extras = [*ranking.extras(ranked, board.titles), *claims.extras(weighed)]
    return [*files, write_site(board, results, home / "html", judged, extras, config_dirs)[0]]


def show(
    results: Path,
    console: Console | None = None,
    datasets: list[str] | None = None,
    config_dirs: Sequence[Path] = (),
    board: Board | None = None,
) -> Board:
    """Print the leaderboard, the tables of every data set (or `datasets`) and the claims, as wide as fits."""
    from rich.console import Console

    # rich is not needed to write files
    from ad_bench.report.terminal import print_board, print_claims, print_front, print_reproduction

    board = board or collect(results, config_dirs)
    console = console or Console()
    print_board(board.tables, board.places, board.remarks, console, datasets)
    judged = reproduction.verdicts(board)
    for dataset in datasets or board.tables:
        print_reproduction(board.titles[dataset], [v for v in judged if v.dataset == dataset], console)
        print_front(board.titles[dataset], costs.costs(board.places[dataset]), console)
    print_claims(claims.brief(claims.evidence(board, config_dirs)), console)
    return board


def columns_of(
    dataset: str, records: Collection[Record], config_dirs: Sequence[Path] = ()
) -> tuple[str, list[str], dict[str, list[str]]]:
    """The title of a data set, the columns of its tables in its order, and which are textures and objects.

    No groups where all categories are of one kind or the data set's YAML calls none a texture.
    """
    title, categories, textures = _configured(dataset, config_dirs)
    title = reference.datasets().get(dataset, {}).get("display_name") or title or dataset
    if dataset == "mvtec":
        categories = list(reference.survey_categories())
    if textures is None:
        textures = {r["category"] for r in records if r.get("texture") is True}
    categories = categories or sorted({r["category"] for r in records})
    groups = {
        "texture": [name for name in categories if name in textures],
        "object": [name for name in categories if name not in textures],
    }
    return title, categories, groups if all(groups.values()) else {}


def _configured(dataset: str, config_dirs: Sequence[Path]) -> tuple[str, list[str], set[str] | None]:
    """Title, categories and textures of its YAML; blank where there is none, as for `dataset.id=mugs`."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from ad_bench.config import options

    path = options("dataset", config_dirs).get(dataset)
    if path is None:
        return "", [], None
    try:
        loaded = OmegaConf.create({"dataset": OmegaConf.load(path)}).dataset
        if not isinstance(loaded, DictConfig):
            return "", [], None
        names, textures = ([str(n) for n in loaded.get(key) or ()] for key in ("categories", "textures"))
        return str(loaded.get("title") or ""), names, set(textures)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        log.warning("%s cannot be read (%s): the categories of %s are those that ran", path, error, dataset)
        return "", [], None


def _well_formed(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Records that say what they are of; what else a record lacks is shown as missing."""
    good, bad = [], []
    for record in records:
        try:
            cell_key(record)
            if record["status"] not in ("done", "failed", "skipped"):
                raise ValueError(f"status {record['status']!r}")
            good.append(record)
        except (KeyError, TypeError, ValueError) as error:
            where = "/".join(
                str(record.get(key, "?")) for key in ("dataset", "category", "method", "protocol")
            )
            bad.append(
                f"a record of {where} is not complete ({error}); delete its folder and run the cell again"
            )
    return good, bad


def _left_out(records: Iterable[Record], categories: Sequence[str]) -> list[str]:
    extra = sorted({r["category"] for r in records} - set(categories))
    return [f"Left out, not among the categories of the data set: {', '.join(extra)}."] if extra else []


def _relative(text: str, results: Path) -> str:
    """Without the folders of this machine: tables are committed."""
    return text.replace(f"{results}/", "").replace(f"{results.absolute()}/", "")


def _nothing(results: Path, readable: int, files: int) -> str:
    first = "run `adbench run method=patchcore dataset=synthetic` first, or name another results folder"
    if readable:
        return f"{results} holds records of debug runs only ({readable}), which no table shows; {first}"
    if files:
        return f"none of the {files} records in {results} can be read; delete them and {first}"
    return f"no records in {results / 'cells'}; {first}"
