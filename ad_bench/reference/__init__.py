"""Published figures, methods and data sets of the survey as package data, read with the csv module alone.

Where the numbers come from and how far each can be trusted: README.md beside this file. All are fractions.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

Row = Mapping[str, str]

# Ids of methods.csv in the order of the survey's tables; the floor of every table comes last.
TAXONOMIES: Mapping[str, str] = MappingProxyType(
    {
        "memory_bank": "Memory bank",
        "teacher_student": "Teacher-student",
        "distribution_map": "Distribution map",
        "one_class": "One-class classification",
        "recon_ae": "Reconstruction: autoencoder",
        "recon_gan": "Reconstruction: GAN",
        "recon_transformer": "Reconstruction: transformer",
        "recon_diffusion": "Reconstruction: diffusion",
        "few_shot": "Few-shot",
        "zero_shot": "Zero-shot",
        "noisy": "Noisy",
        "supervised": "Supervised",
        "three_d": "3D",
        "synthesis": "Anomaly synthesis",
        "baseline": "Baseline",
    }
)

# The table of the survey that holds a metric on MVTec AD; the survey prints no image AUPR.
SURVEY_TABLES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("mvtec", "image_auroc"): "table9_image_auroc",
        ("mvtec", "pixel_auroc"): "table10_pixel_auroc",
        ("mvtec", "pixel_aupr"): "table10_pixel_aupr",
    }
)

# other_published.csv names average precision as its sources do.
_OTHER_NAMES = {"image_aupr": "image_ap", "pixel_aupr": "pixel_ap"}

# Who published a pixel AUPR, best first: the survey leaves that half of Table 10 to be guessed, and
# IM-IAD is its authors' own reproduction. Rows that quote others come last.
_AUPR_PREFERENCE = ("original paper", "IM-IAD", "DeSTSeg", "DiffAD", "quoted by")

# Figures of other_published.csv that its README calls wrong: (method, data set, metric, start of the source).
_DOUBTFUL = {
    ("padim", "mtd", "pixel_aupr", "IM-IAD"): "repeats the pixel AUROC of the same row: a slip of the source",
    ("patchcore", "mvtec", "pixel_auroc", "IM-IAD README, vanilla setting; misprint"): "misprint for .984",
}

_FULL, _UNIFIED = "full", "unified"
_BOOKKEEPING = frozenset(
    ("taxonomy", "method", "variant", "display_name", "survey_ref", "year")
    + ("avg", "status", "note", "survey_avg", "mean_of_categories", "in_ocr")
)


@dataclass(frozen=True)
class Published:
    """One published row: `values` by category (those known) and the average to compare with, as fractions.

    `standing` is `survey`, `paper` or `suspect` (no target to aim at) for rows of Tables 9 and 10, else
    `other: <source>` (or `suspect`, where the source is known to be wrong). `protocol` is the setting it was
    measured in (`full`, `unified`, `few_shot-8`, ...): rows of different settings are not comparable.
    """

    dataset: str
    metric: str
    method: str
    title: str
    taxonomy: str
    protocol: str
    standing: str
    values: Mapping[str, float]
    average: float | None
    note: str = ""
    variant: str = ""  # who published it, where one method has several rows
    in_survey: bool = field(default=False)  # stands in Table 9 or 10 or in our stand-in for its AUPR half

    def comparable(self, protocol: str) -> bool:
        """True if a run under `protocol` (`full`, `few_shot-4`) was measured in the same setting."""
        return protocol == self.protocol or protocol.startswith(f"{self.protocol}-")


def read(name: str) -> list[dict[str, str]]:
    """The rows of `<name>.csv` of this folder as they stand there, all text, fresh for the caller."""
    text = resources.files(__name__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=1)
def methods() -> Mapping[str, Row]:
    """Every method the survey names by its id: display_name, taxonomy, paper_title, venue_year, code, ..."""
    return MappingProxyType({row["id"]: MappingProxyType(row) for row in read("methods")})


@lru_cache(maxsize=1)
def tuning() -> Mapping[str, Row]:
    """Methods of which it is known whether their published figures were tuned per category, by id."""
    return MappingProxyType({row["method"]: MappingProxyType(row) for row in read("tuning")})


@lru_cache(maxsize=1)
def datasets() -> Mapping[str, Row]:
    """Every data set of Table 7, and three more, by its id: display_name, counts, annotation, licence, ..."""
    return MappingProxyType({row["id"]: MappingProxyType(row) for row in read("datasets")})


@lru_cache(maxsize=1)
def survey_categories() -> tuple[str, ...]:
    """The 15 columns of Tables 9 and 10, in their order."""
    return tuple(name for name in read("table9_image_auroc")[0] if name not in _BOOKKEEPING)


@lru_cache(maxsize=64)
def published(dataset: str, metric: str) -> tuple[Published, ...]:
    """All published rows of a metric (`image_auroc`, `pixel_aupr`, ...) on a data set, by id of methods.csv.

    The survey's rows come first, in its order; of several rows of one method the preferred comes first
    (README.md, Which row is compared with). Empty where nothing is known.
    """
    table = SURVEY_TABLES.get((dataset, metric))
    survey = _survey_rows(dataset, metric, table) if table else []
    return tuple(survey + _other_rows(dataset, metric))


def preferred(rows: Iterable[Published]) -> dict[tuple[str, str], Published]:
    """(method, protocol) -> the first of its rows, in the order of `rows`: what a table sets beside ours."""
    chosen: dict[tuple[str, str], Published] = {}
    for row in rows:
        chosen.setdefault((row.method, row.protocol), row)
    return chosen


def _survey_rows(dataset: str, metric: str, table: str) -> list[Published]:
    rows = [
        Published(
            dataset=dataset,
            metric=metric,
            method=row["method"],
            title=row["display_name"],
            taxonomy=row["taxonomy"],
            protocol=_survey_protocol(row),
            standing=row["status"],
            values=MappingProxyType({c: float(row[c]) for c in survey_categories() if row[c]}),
            average=float(row["avg"]) if row["avg"] else None,
            note=row["note"],
            variant=row.get("variant", ""),
            in_survey=True,
        )
        for row in read(table)
    ]
    order = list(dict.fromkeys(row.method for row in rows))
    return sorted(rows, key=lambda row: (order.index(row.method), _aupr_rank(row)))


def _survey_protocol(row: Row) -> str:
    """Table 10 closes with few-shot, noisy and supervised rows; the others train on all normal images."""
    shots = re.search(r"\((\d+)-shot\)", row["display_name"])
    if shots:
        return f"few_shot-{shots[1]}"
    return row["taxonomy"] if row["taxonomy"] in ("few_shot", "noisy", "supervised") else _FULL


def _aupr_rank(row: Published) -> tuple[int, int, int]:
    """The paper's own row, then rows with categories, then by source."""
    places = [i for i, name in enumerate(_AUPR_PREFERENCE) if name in row.variant]
    source = places[0] if places else len(_AUPR_PREFERENCE)
    return (min(source, 1), 0 if row.values else 1, source)


def _other_rows(dataset: str, metric: str) -> list[Published]:
    groups: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in _other_published().get((dataset, _OTHER_NAMES.get(metric, metric)), ()):
        key = (row["method"], row["setting"], row["source"])
        groups.setdefault(key, {})[row["category"]] = float(row["value"])
    rows = []
    for (ident, setting, source), values in groups.items():
        method, protocol = _other_protocol(ident, setting, source)
        known = methods().get(method, {})
        doubts = [
            why for (*key, start), why in _DOUBTFUL.items()
            if key == [method, dataset, metric] and source.startswith(start)
        ]  # fmt: skip
        rows.append(
            Published(
                dataset=dataset,
                metric=metric,
                method=method,
                title=known.get("display_name", method),
                taxonomy=known.get("taxonomy", ""),
                protocol=protocol,
                standing="suspect" if doubts else f"other: {source}",
                values=MappingProxyType({c: v for c, v in values.items() if c != "avg"}),
                average=values.get("avg"),
                note="; ".join([source, setting, *doubts]),
            )
        )
    return sorted(rows, key=lambda row: (_source_rank(row), -len(row.values)))  # stable: file order last


def _other_protocol(ident: str, setting: str, source: str) -> tuple[str, str]:
    shots = re.fullmatch(r"(\w+)_(\d+)shot", ident)
    if shots:
        return shots[1], f"few_shot-{shots[2]}"
    if setting == "one model for all categories":
        return ident, _UNIFIED
    return ident, "noisy" if "10% noise" in source else _FULL


def _source_rank(row: Published) -> int:
    """Authors, papers that quote them, IM-IAD, the rest; anomalib's last, they are of an older release."""
    if row.standing == "suspect":
        return 9
    source = row.standing
    own = ("paper column", "paper Table", "abstract", "other: official")
    if any(mark in source for mark in own):
        return 0
    for rank, mark in ((1, "Table"), (2, "IM-IAD"), (4, "anomalib")):
        if mark in source:
            return rank
    return 3


@lru_cache(maxsize=1)
def _other_published() -> Mapping[tuple[str, str], list[dict[str, str]]]:
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read("other_published"):
        found.setdefault((row["dataset"], row["metric"]), []).append(row)
    return found
