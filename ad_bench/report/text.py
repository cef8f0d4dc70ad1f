"""Figures as printed, and footnotes: what Markdown and LaTeX share."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Context

from ad_bench.report.rows import Value
from ad_bench.report.tables import DIGITS, Kind, Line

NOT_EXACT = "computed the bounded way, not exact"  # where the bound itself is not known


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
