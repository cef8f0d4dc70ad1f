"""A critical-difference diagram: drawn once as lines, dots and words, printed as SVG and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape as html_escape

from ad_bench.report import latex
from ad_bench.report.rows import shorten

WIDTH, SIDE, TOP = 760, 250, 46  # px: the picture, what labels have on either side, where the axis lies
LETTERS = 28  # of a label: what fits beside the axis
STEP = 22  # between labels
BAR = 9  # between bars
UNIT = 0.62  # pt of one px in print: the picture is as wide as a page's text


@dataclass(frozen=True)
class Stroke:
    """A straight line from (x, y) to (to_x, to_y)."""

    x: float
    y: float
    to_x: float
    to_y: float
    width: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A full circle."""

    x: float
    y: float


@dataclass(frozen=True)
class Word:
    """Text whose baseline lies at y; x is its start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass
class Drawing:
    """Things in px, y downwards; `title` and `description` are read out where a picture cannot be seen."""

    title: str
    description: str
    height: float = 0
    parts: list[Stroke | Dot | Word] = field(default_factory=list)


def draw(
    title: str, axis: str, names: Sequence[str], mean_ranks: Sequence[float], groups: Sequence[Sequence[int]]
) -> Drawing:
    """The diagram of Demsar, "Statistical comparisons of classifiers over multiple data sets", 2006.

    names and mean_ranks: best first. groups: places in them; a bar joins methods that no test tells apart,
    with a dot at each, as one that lies between two others need not belong to their group.
    """
    drawing = Drawing(title, description(names, mean_ranks, groups))
    count = len(names)
    if count < 2:
        drawing.height = 60
        drawing.parts.append(Word(12, 34, "Fewer than two methods can be compared."))
        return drawing

    def at(rank: float) -> float:
        return SIDE + (rank - 1) / (count - 1) * (WIDTH - 2 * SIDE)

    add = drawing.parts.append
    add(Word(WIDTH / 2, 14, axis, "middle"))
    add(Stroke(at(1), TOP, at(count), TOP))
    for rank in range(1, count + 1):
        add(Stroke(at(rank), TOP - 6, at(rank), TOP))
        add(Word(at(rank), TOP - 11, str(rank), "middle"))
    for i, group in enumerate(groups):
        y = TOP + 12 + BAR * i
        ends = [at(mean_ranks[member]) for member in group]
        add(Stroke(min(ends) - 4, y, max(ends) + 4, y, 3))
        drawing.parts += [Dot(x, y) for x in ends]
    first = TOP + 12 + BAR * len(groups) + 16
    left = math.ceil(count / 2)
    for i, (name, mean) in enumerate(zip(names, mean_ranks, strict=True)):
        x, row = at(mean), i if i < left else count - 1 - i
        y, figure = first + STEP * row, f"{mean:.2f}"
        text = shorten(name, LETTERS)
        add(Stroke(x, TOP, x, y))
        if i < left:
            add(Stroke(SIDE - 12, y, x, y))
            add(Word(SIDE - 16, y + 4, f"{text}  {figure}", "end"))
        else:
            add(Stroke(x, y, WIDTH - SIDE + 12, y))
            add(Word(WIDTH - SIDE + 16, y + 4, f"{figure}  {text}"))
    drawing.height = first + STEP * (left - 1) + 14
    return drawing


def description(names: Sequence[str], mean_ranks: Sequence[float], groups: Sequence[Sequence[int]]) -> str:
    """The picture in words."""
    if len(names) < 2:
        return "Fewer than two methods can be compared."
    order = "; ".join(f"{name} {mean:.2f}" for name, mean in zip(names, mean_ranks, strict=True))
    told = [", ".join(names[member] for member in group) for group in groups]
    rest = f"Not told apart: {'; '.join(f'({text})' for text in told)}." if told else "All are told apart."
    return f"Mean ranks, 1 is best: {order}. {rest}"


def svg(drawing: Drawing, ident: str, alone: bool = True) -> str:
    """SVG text. alone: a file or an image, which brings its colours, light and dark; else it stands within a
    page and takes the colour of the text around it. ident: makes its ids unique there.
    """
    name, words = f"{ident}-title", f"{ident}-description"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawing.height:g}" role="img"'
        f' aria-labelledby="{name} {words}" font-family="system-ui, sans-serif" font-size="12"'
        ' fill="currentColor">',
        f'<title id="{name}">{_text(drawing.title)}</title>',
        f'<desc id="{words}">{_text(drawing.description)}</desc>',
    ]
    if alone:
        dark = "@media (prefers-color-scheme: dark) {svg {color: #e6e6e6}}"
        lines.append(f"<style>svg {{color: #1a1a1a}} {dark}</style>")
    for part in drawing.parts:
        if isinstance(part, Stroke):
            path = f"M{part.x:.1f} {part.y:.1f}L{part.to_x:.1f} {part.to_y:.1f}"
            lines.append(
                f'<path d="{path}" stroke="currentColor" stroke-width="{part.width:g}" fill="none"/>'
            )
        elif isinstance(part, Dot):
            lines.append(f'<circle cx="{part.x:.1f}" cy="{part.y:.1f}" r="4"/>')
        else:
            where = f'x="{part.x:.1f}" y="{part.y:.1f}" text-anchor="{part.anchor}" xml:space="preserve"'
            lines.append(f"<text {where}>{_text(part.text)}</text>")
    return "\n".join([*lines, "</svg>", ""])


def _text(text: str) -> str:
    """Escaped; XML has no way to write a control character."""
    return html_escape("".join(c if c.isprintable() else "\ufffd" for c in text))


_BOXES = {"start": "[bl]", "middle": "[b]", "end": "[br]"}


def figure(drawing: Drawing, caption: str, label: str) -> str:
    r"""A LaTeX file with the figure: compiles as it is, and a paper can \input it.

    LaTeX's own picture environment has all that upright and level lines need, on every installation of TeX.
    """
    body = []
    for part in drawing.parts:
        if isinstance(part, Stroke):
            level = part.y == part.to_y
            x, y = min(part.x, part.to_x), max(part.y, part.to_y)
            length = abs(part.to_x - part.x) + abs(part.to_y - part.y)
            line = rf"\line({'1,0' if level else '0,1'}){{{length:.1f}}}"
            body.append(rf"\linethickness{{{part.width * 0.5:g}pt}}\put{_at(drawing, x, y)}{{{line}}}")
        elif isinstance(part, Dot):
            body.append(rf"\put{_at(drawing, part.x, part.y)}{{\circle*{{6}}}}")
        else:
            box = rf"\makebox(0,0){_BOXES[part.anchor]}{{{latex.escape(part.text)}}}"
            body.append(rf"\put{_at(drawing, part.x, part.y)}{{{box}}}")
    return latex.head(drawing.title, "graphicx", "a4paper", "20mm") + "\n".join(
        [
            r"\begin{figure*}[tbp]",
            r"\centering\scriptsize\setlength{\unitlength}{" + f"{UNIT}pt}}",
            r"\setbox8=\hbox{%",
            rf"\begin{{picture}}({WIDTH},{drawing.height:g})",
            *body,
            r"\end{picture}}%",
            r"\ifdim\wd8>\linewidth\resizebox{\linewidth}{!}{\copy8}\else\copy8\fi",
            rf"\caption{{{latex.escape(caption)}}}",
            rf"\label{{{label}}}",
            r"\end{figure*}",
            r"\adbenchend",
            "",
        ]
    )


def _at(drawing: Drawing, x: float, y: float) -> str:
    return f"({x:.1f},{drawing.height - y:.1f})"
