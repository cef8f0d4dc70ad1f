r"""A table as LaTeX: a file that compiles as it is and that a paper can \input without a change."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from functools import partial as partial_of
from itertools import groupby

from ad_bench.report.rows import Value
from ad_bench.report.tables import (
    BEST,
    SECOND,
    Line,
    Table,
    intervals,
    label,
    largest_bound,
    legend,
    name_and_setting,
    partial,
    taxonomy_title,
)
from ad_bench.report.text import Footnotes, average_is_partial, bound_note, parts

ROWS_PER_FLOAT = 40  # a float cannot break over pages; longtable can, but not in a two-column paper

# Points of what a landscape page holds, by estimate: what is too high runs over the foot of the page.
PAGE_HEIGHT, CAPTION_HEIGHT, ROW_HEIGHT, NOTE_HEIGHT = 500.0, 40.0, 9.8, 8.2
NOTE_LENGTH = 190  # letters of a line of notes

_HEAD = r"""% {title}. Made by `adbench report` from records; do not edit.
% Compiles as it is. In a paper: \usepackage{{{packages}}}, then \input this file{note}
\makeatletter
\ifx\@nodocument\relax % inside a document
  \let\adbenchend\relax
  \makeatother
\else
  \makeatother
  \documentclass[{page}]{{article}}
  \usepackage[utf8]{{inputenc}}
  \usepackage[margin={margin}]{{geometry}}
  \usepackage{{{packages}}}
  \begin{{document}}
  \def\adbenchend{{\end{{document}}}}
\fi
"""
_TURNED = "; with rotating too, a\n% wide table is turned on its side."
_WIDE = r"""\def\adbenchwide{table*}
\ifcsname sidewaystable*\endcsname\def\adbenchwide{sidewaystable*}\fi
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after \\ a bracket or a star would be its argument
    "*": "{*}",
    '"': "''",
    "`": "'",
    "-": "-{}",  # no ligatures: a variant's -- stays two hyphens
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
}


# Letters that pdflatex has not in its default encoding, which a paper may well use.
_NOT_IN_OT1 = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲų")


@dataclass(frozen=True)
class Row:
    """One row: `cells` gives its LaTeX and takes letters for footnotes. Rows of one block stay together."""

    cells: Callable[[Footnotes], list[str]]
    remarks: Sequence[str] = ()  # what its footnotes say, to know how many lines they take
    group: str = ""  # the heading above it
    block: str = ""
    starts: bool = True  # a part may begin with it, where a block is too long for one


@dataclass(frozen=True)
class Sheet:
    """A table that may need several floats; texts other than `title`, `name` and remarks are LaTeX."""

    title: str
    name: str  # of its label
    align: str
    head: Sequence[str]
    rows: Sequence[Row]
    below: Callable[[range], list[str]]  # lines below the part that holds these rows
    turned: bool = False  # a wide one: heads upright, and the whole on its side where a paper can do that
    empty: str = "No records."


def table_latex(table: Table) -> str:
    """The whole file. Needs booktabs and graphicx; long tables become several floats, cut between methods."""
    return document([_sheet(table)])


def document(sheets: Sequence[Sheet]) -> str:
    """A file with these tables, one after another."""
    floats = [text for sheet in sheets for text in _floats(sheet)]
    top = head(sheets[0].title, "booktabs,graphicx", "a4paper,landscape", "15mm", _TURNED)
    return top + _WIDE + "\n".join(floats) + "\\adbenchend\n"


def head(title: str, packages: str, page: str, margin: str, note: str = ".") -> str:
    r"""The start of a file that compiles as it is and that a paper can \input; \adbenchend ends it."""
    return _HEAD.format(title=_comment(title), packages=packages, page=page, margin=margin, note=note)


def _sheet(table: Table) -> Sheet:
    single = len(table.categories) == 1
    names = [escape(name) for name in [*table.categories, *([] if single else ["average"])]]
    turned = len(names) > 6
    bound = largest_bound(table.lines)
    inexact = bound_note(bound) if bound else ""

    def below(part: range) -> list[str]:
        lines = table.lines[part.start : part.stop]
        texts = [escape(text) for text in legend(table, groups=False)] if part.start == 0 else []
        if part.start == 0 and turned and any(line.seeds and line.seeds > 1 for line in table.lines):
            texts.append("Deviations of single categories stand in the CSV.")
        texts += [escape(text) for text in intervals(lines, single)]
        short = partial(lines, len(table.categories))
        if short:
            texts.append("{*} Not over all categories: " + escape("; ".join(short)) + ".")
        return texts + ([escape(text) for text in table.remarks] if part.stop >= len(table.lines) else [])

    return Sheet(
        title=f"{table.dataset_title}: {table.spec.title}",
        name=f"{table.dataset}-{table.spec.name}",
        align="ll" + "r" * len(names),
        head=["method", "row", *([rf"\rotatebox{{90}}{{{name}}}" for name in names] if turned else names)],
        rows=[
            Row(
                partial_of(_row, line, table.categories, turned, inexact),
                [*name_and_setting(line)[2], *line.remarks],
                taxonomy_title(line.taxonomy),
                line.method,
                line.kind == "ours" or line.alone,
            )
            for line in table.lines
        ],
        below=below,
        turned=turned,
    )


def _floats(sheet: Sheet) -> list[str]:
    parts = _parts(sheet) or [range(0)]
    return [_float(sheet, part, number, len(parts)) for number, part in enumerate(parts, 1)]


def _parts(sheet: Sheet) -> list[range]:
    """Which rows share a float: blocks stay together, and with its footnotes a part fits a landscape page."""
    blocks: list[range] = []
    for _, rows in groupby(range(len(sheet.rows)), key=lambda i: sheet.rows[i].block):
        found = list(rows)
        blocks.append(range(found[0], found[-1] + 1))
    parts: list[range] = []
    for block in blocks:
        if parts and _fits(sheet, range(parts[-1].start, block.stop)):
            parts[-1] = range(parts[-1].start, block.stop)
        elif _fits(sheet, block):
            parts.append(block)
        else:
            parts += _pieces(sheet, block)
    return parts


def _pieces(sheet: Sheet, block: range) -> list[range]:
    """A block that fits no page, cut where a row has a name."""
    pieces = [range(block.start, block.start)]
    starts = [i for i in block if sheet.rows[i].starts or i == block.start]
    for first, stop in zip(starts, [*starts[1:], block.stop], strict=True):
        whole = range(pieces[-1].start, stop)
        if not pieces[-1] or _fits(sheet, whole):
            pieces[-1] = whole
        else:
            pieces.append(range(first, stop))
    return pieces


def _fits(sheet: Sheet, part: range) -> bool:
    """True where the part with head and notes is no higher than a landscape page, by estimate."""
    if len(part) > ROWS_PER_FLOAT:
        return False
    rows = sheet.rows[part.start : part.stop]
    notes = dict.fromkeys(text for row in rows for text in row.remarks)
    run_in = sum(len(text) + 4 for text in notes)
    lines = sum(1 + len(text) // NOTE_LENGTH for text in [*sheet.below(part), "." * run_in])
    groups = len({row.group for row in rows if row.group})
    head = 5.0 * max((len(re.sub(r"\\rotatebox\{90\}", "", name)) for name in sheet.head), default=0)
    height = CAPTION_HEIGHT + (head if sheet.turned else ROW_HEIGHT)
    height += ROW_HEIGHT * (len(rows) + 1.5 * groups) + NOTE_HEIGHT * lines
    return height <= PAGE_HEIGHT


def _float(sheet: Sheet, part: range, number: int, total: int) -> str:
    notes = Footnotes()
    body: list[str] = []
    group = ""
    for row in sheet.rows[part.start : part.stop]:
        if row.group != group:
            body += [r"\midrule"] if body else []
            group = row.group
            body.append(rf"\multicolumn{{{len(sheet.align)}}}{{@{{}}l}}{{\textit{{{escape(group)}}}}} \\")
        body.append(" & ".join(row.cells(notes)) + r" \\")
    small = sheet.below(part)
    letters = [rf"\textsuperscript{{{letter}}}~{escape(text)}." for text, letter in notes.letters.items()]
    small += ["\n".join(letters)] if letters else []
    name = f"tab:adbench-{sheet.name}" + (f"-{number}" if total > 1 else "")
    title = sheet.title + (f" (part {number} of {total})" if total > 1 else "")
    kind = r"\adbenchwide" if sheet.turned else "table*"
    return "\n".join(
        [
            rf"\begin{{{kind}}}[p]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(title)}.}}",
            rf"\label{{{_label(name)}}}",
            r"\setbox8=\hbox{%",
            rf"\begin{{tabular}}{{@{{}}{sheet.align}@{{}}}}",
            r"\toprule",
            " & ".join(sheet.head) + r" \\",
            r"\midrule",
            *(body or [rf"\multicolumn{{{len(sheet.align)}}}{{@{{}}l}}{{{sheet.empty}}} \\"]),
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\leavevmode\ifdim\wd8>\linewidth\resizebox{\linewidth}{!}{\copy8}\else\copy8\fi",
            r"\par\smallskip\raggedright\scriptsize",
            "\\par\n".join(small) if small else "",
            rf"\end{{{kind}}}",
            "",
        ]
    )


def _row(line: Line, categories: Sequence[str], wide: bool, inexact: str, notes: Footnotes) -> list[str]:
    """A wide table has no room for the deviation of each category."""
    title, setting, long = name_and_setting(line)
    name = escape(title) + (rf" {{\scriptsize({escape(setting)})}}" if setting else "")
    mark = superscript(notes, [*long, *line.remarks])
    first, second = (name + mark, escape(label(line))) if name else ("", escape(label(line)) + mark)

    def cell(value: Value, column: str) -> str:
        shown = value._replace(deviation=None) if wide and column else value
        text = _cell(line, shown, line.rank.get(column))
        return text + superscript(notes, [inexact]) if value.bound else text

    cells = [cell(line.cells[column], column) for column in categories]
    if len(categories) > 1:
        average = cell(line.average, "")
        cells.append(f"({average})*" if average_is_partial(line) else average)
    return [first, second, *cells]


def superscript(notes: Footnotes, remarks: Sequence[str]) -> str:
    """The letters of these footnotes, blank for none."""
    return rf"\textsuperscript{{{notes.mark(remarks)}}}" if remarks else ""


def _cell(line: Line, value: Value, rank: int | None) -> str:
    mean, deviation = parts(value, line.kind)
    if mean[0] in "+-" and len(mean) > 1:
        mean = f"${mean}$"
    if rank == BEST:
        mean = rf"\textbf{{{mean}}}"
    elif rank == SECOND:
        mean = rf"\underline{{{mean}}}"
    return mean + (rf"{{\tiny\,$\pm$\,{deviation}}}" if deviation else "")


@lru_cache(maxsize=1 << 14)  # names stand in many tables
def escape(text: str) -> str:
    r"""Text as LaTeX prints it with pdflatex; what its fonts lack is named by its code."""
    return "".join(_SPECIAL.get(c) or _plain(c) for c in " ".join(text.split()))


def _plain(char: str) -> str:
    if " " <= char <= "~" or (char.isalpha() and "\u00c0" <= char <= "\u017e" and char not in _NOT_IN_OT1):
        return char
    if unicodedata.category(char) in ("Cc", "Cf", "Mn"):
        return ""
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isascii() and base.isalnum() else rf"\texttt{{U+{ord(char):04X}}}"


def _comment(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())


def _label(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in ":-_.") else "-" for c in text)
