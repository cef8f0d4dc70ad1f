r"""A table as LaTeX: a file that compiles as it is and that a paper can \input without a change."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

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

_HEAD = r"""% {title}. Made by `adbench report` from records; do not edit.
% Compiles as it is. In a paper: \usepackage{{booktabs,graphicx}}, then \input this file.
\makeatletter
\ifx\@nodocument\relax % inside a document
  \let\adbenchend\relax
  \makeatother
\else
  \makeatother
  \documentclass[a4paper,landscape]{{article}}
  \usepackage[utf8]{{inputenc}}
  \usepackage[margin=15mm]{{geometry}}
  \usepackage{{booktabs,graphicx}}
  \begin{{document}}
  \def\adbenchend{{\end{{document}}}}
\fi
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


def table_latex(table: Table) -> str:
    """The whole file. Needs booktabs and graphicx; long tables become several floats, cut between methods."""
    title = f"{table.dataset_title}: {table.spec.title}"
    chunks = _chunks(table.lines) or [()]
    floats = [_float(table, lines, i, len(chunks), title) for i, lines in enumerate(chunks, 1)]
    return _HEAD.format(title=_comment(title)) + "\n".join(floats) + "\\adbenchend\n"


def _chunks(lines: Sequence[Line]) -> list[tuple[Line, ...]]:
    """Lines by float: the rows of one method stay together."""
    blocks: list[list[Line]] = []
    for line in lines:
        if blocks and blocks[-1][-1].method == line.method:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    chunks: list[list[Line]] = []
    for block in blocks:
        if chunks and len(chunks[-1]) + len(block) <= ROWS_PER_FLOAT:
            chunks[-1] += block
        else:
            chunks.append(list(block))
    return [tuple(chunk) for chunk in chunks]


def _float(table: Table, lines: Sequence[Line], number: int, total: int, title: str) -> str:
    notes = Footnotes()
    single = len(table.categories) == 1
    columns = list(table.categories) + ([] if single else ["average"])
    turned = len(columns) > 6
    bound = largest_bound(lines)
    inexact = bound_note(bound) if bound else ""
    body: list[str] = []
    group = None
    for line in lines:
        if line.taxonomy != group:
            body += [r"\midrule"] if group is not None else []
            group = line.taxonomy
            span = len(columns) + 2
            body.append(rf"\multicolumn{{{span}}}{{@{{}}l}}{{\textit{{{escape(taxonomy_title(group))}}}}} \\")
        body.append(" & ".join(_row(line, table.categories, single, notes, inexact)) + r" \\")
    names = [escape(name) for name in columns]
    heads = [rf"\rotatebox{{90}}{{{name}}}" for name in names] if turned else names
    short = partial(table)
    small = [escape(text) for text in [*legend(table), *intervals(lines, single)]]
    if short:
        small.append("{*} Not over all categories: " + escape("; ".join(short)) + ".")
    small += [rf"\textsuperscript{{{letter}}} {escape(text)}." for text, letter in notes.letters.items()]
    small += [escape(text) for text in table.remarks]
    part = f" (part {number} of {total})" if total > 1 else ""
    name = f"tab:adbench-{table.dataset}-{table.spec.name}" + (f"-{number}" if total > 1 else "")
    return "\n".join(
        [
            r"\begin{table*}[p]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(title + part)}.}}",
            rf"\label{{{_label(name)}}}",
            r"\setbox8=\hbox{%",
            rf"\begin{{tabular}}{{@{{}}ll{'r' * len(columns)}@{{}}}}",
            r"\toprule",
            " & ".join(["method", "row", *heads]) + r" \\",
            r"\midrule",
            *(body or [rf"\multicolumn{{{len(columns) + 2}}}{{@{{}}l}}{{No records.}} \\"]),
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\ifdim\wd8>\linewidth\resizebox{\linewidth}{!}{\copy8}\else\copy8\fi",
            r"\par\smallskip\raggedright\scriptsize",
            "\\par\n".join(small) if small else "",
            r"\end{table*}",
            "",
        ]
    )


def _row(line: Line, categories: Sequence[str], single: bool, notes: Footnotes, inexact: str) -> list[str]:
    title, setting, long = name_and_setting(line)
    name = escape(title) + (rf" {{\scriptsize({escape(setting)})}}" if setting else "")
    letters = notes.mark([*long, *line.remarks])
    mark = rf"\textsuperscript{{{letters}}}" if letters else ""
    first, second = (name + mark, escape(label(line))) if name else ("", escape(label(line)) + mark)

    def cell(value: Value, column: str) -> str:
        text = _cell(line, value, line.rank.get(column))
        return rf"{text}\textsuperscript{{{notes.mark([inexact])}}}" if value.bound else text

    cells = [cell(line.cells[column], column) for column in categories]
    if not single:
        average = cell(line.average, "")
        cells.append(f"({average})*" if average_is_partial(line) else average)
    return [first, second, *cells]


def _cell(line: Line, value: Value, rank: int | None) -> str:
    mean, deviation = parts(value, line.kind)
    if mean[0] in "+-" and len(mean) > 1:
        mean = f"${mean}$"
    if rank == BEST:
        mean = rf"\textbf{{{mean}}}"
    elif rank == SECOND:
        mean = rf"\underline{{{mean}}}"
    return mean + (rf"{{\tiny\,$\pm$\,{deviation}}}" if deviation else "")


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
