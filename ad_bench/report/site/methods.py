"""data/methods/<method>.js: where a method comes from, its settings, what departs from the reference."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ad_bench
from ad_bench import config, reference
from ad_bench.report.leaderboard import Place
from ad_bench.report.rows import under
from ad_bench.report.site.overview import key_of
from ad_bench.report.site.script import slug
from ad_bench.report.tables import FIDELITY

# The class in the composed settings of a run; of the package's own methods the source is at hand.
_TARGET = re.compile(r"^ +_target_: ad_bench\.methods\.([a-z0-9_]+)\.\w+ *$", re.MULTILINE)
_ARXIV = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(v\d+)?")
_DOI = re.compile(r"10\.\d{4,9}/[\w.()/:;-]+")
_VERDICT = (
    *("dataset", "variant", "protocol", "category", "metric", "ours", "published", "difference", "standing"),
    *("verdict", "why"),
)


def method_page(
    method: str,
    places: Sequence[Place],
    settings: Mapping[str, str],
    verdicts: Sequence[Any],
    config_dirs: Sequence[Path] = (),
) -> dict[str, Any]:
    """All that is known of a method. `settings`: row -> the composed settings of its newest record."""
    newest = max(places, key=lambda p: (str(p.entry.newest.get("date") or ""), key_of(p.entry)))
    record = newest.entry.newest
    known = reference.methods().get(method, {})
    composed = settings.get(key_of(newest.entry), "")
    fidelity = str(record.get("fidelity") or "")
    return {
        "id": method,
        "title": newest.entry.title,
        "taxonomy": newest.taxonomy,
        "fidelity": fidelity,
        "about_fidelity": FIDELITY.get(
            fidelity, "agrees with the authors' code" if fidelity == "reference" else ""
        ),
        "source": str(record.get("source") or ""),
        "paper_title": known.get("paper_title", ""),
        "venue": known.get("venue_year", ""),
        "links": _links(str(under(record, "paper").get("arxiv") or ""), known),
        "selection": str(under(record, "paper").get("selection") or ""),
        "yaml": _yaml(method, config_dirs) if composed else "",
        "composed": composed,
        "composed_of": key_of(newest.entry),
        "about": _docstring(composed),
        "rows": [
            {
                "dataset": slug(p.entry.dataset),
                "key": key_of(p.entry),
                "variant": p.entry.variant,
                "protocol": p.entry.protocol,
            }
            for p in places
        ],
        "verdicts": [{key: _plain(getattr(verdict, key, None)) for key in _VERDICT} for verdict in verdicts],
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _links(arxiv: str, known: Mapping[str, str]) -> list[list[str]]:
    """[text, address] of the paper and of the authors' code; nothing that is no arXiv id, DOI or https."""
    links: dict[str, str] = {}
    for ident in (arxiv, known.get("arxiv_or_doi", "")):
        if _ARXIV.fullmatch(ident):
            links.setdefault(f"arXiv:{ident}", f"https://arxiv.org/abs/{ident}")
        elif _DOI.fullmatch(ident):
            links.setdefault(f"doi:{ident}", f"https://doi.org/{ident}")
    code = known.get("code", "")
    if code.startswith("https://"):
        links["authors' code"] = code
    return [[text, address] for text, address in links.items()]


def _yaml(method: str, config_dirs: Sequence[Path]) -> str:
    """The method's YAML as written, with the sources of its numbers; blank where there is none."""
    path = config.options("method", config_dirs).get(method)
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _docstring(composed: str) -> str:
    """What the file of one of the package's methods says of itself: paper, reference, deviations."""
    target = _TARGET.search(composed)
    path = Path(ad_bench.__file__).parent / "methods" / f"{target[1]}.py" if target else None
    if path is None or not path.is_file():
        return ""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
