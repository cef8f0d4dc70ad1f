"""Figures as printed, and footnotes: what Markdown and LaTeX share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context

from ad_bench.report.rows import Value, shorten
from ad_bench.report.tables import DIGITS, Kind, Line

# Characters that print nothing but steer a terminal or turn the order of letters, and halves of a pair.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
NOT_EXACT = "computed the bounded way, not exact"  # where the bound itself is not known


def seen(text: str) -> str:
    """The text without what prints nothing, on one line."""
    return " ".join(_UNSEEN.sub("", text).split())


def figure(mean: float, kind: Kind = "ours", digits: int = DIGITS) -> str:
    """`0.987`, or `+0.003` for a difference; zero has no sign."""
    text = f"{mean:+.{digits}f}" if kind == "difference" else f"{mean:.{digits}f}"
    return text.lstrip("+-") if not any(c in "123456789" for c in text) else text


def parts(value: Value, kind: Kind) -> tuple[str, str]:
    """The printed mean (or `-`, `failed`, `skipped`) and the deviation, blank where there is none."""
    if value.mean is None:
        return ("-" if value.state in ("missing", "undefined", "value") else value.state), ""
    return figure(value.mean, kind), "" if value.deviation is None else figure(value.deviation)


def bound_note(bound: float) -> str:
    """The footnote of figures that are not exact; the largest of their bounds, never rounded down."""
    rounded = Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(bound))
    return f"bounded, not exact: at most ±{float(rounded):.1e}"


def average_is_partial(line: Line) -> bool:
    """True where our average is not over all categories, so that it must not be read as one."""
    return line.kind == "ours" and not line.complete and line.average.mean is not None


def named(title: str, variant: str, protocol: str, limit: int = 40) -> tuple[str, list[str]]:
    """`PatchCore (backbone=resnet18, few_shot-4)`, and a footnote where the variant is too long to show."""
    short = shorten(variant, limit)
    setting = ", ".join(text for text in (short, protocol if protocol != "full" else "") if text)
    return f"{title} ({setting})" if setting else title, [] if short == variant else [f"variant: {variant}"]


class Footnotes:
    """Letters for remarks, in the order they come up; equal remarks share one."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, remarks: Sequence[str]) -> str:
        """`a,c` for these remarks."""
        return ",".join(self.letters.setdefault(text, _letters(len(self.letters))) for text in remarks)


def _letters(index: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
