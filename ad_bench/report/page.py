"""leaderboard.md: a leaderboard for each data set, operating points, values as other projects have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ad_bench.report.leaderboard import (
    POINTS,
    Place,
    cost_text,
    in_brackets,
    metric_rank,
    metric_text,
    name_of,
)
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.rows import MISSING, Value, percent
from ad_bench.report.tables import taxonomy_title
from ad_bench.report.text import NOT_EXACT, Footnotes, bound_note, figure

# Columns: heading and metric. Original masks: the survey names shrunken ones as a fault.
SHOWN = (
    ("image AUROC", "image.image_auroc"),
    ("image AUPR", "image.image_aupr"),
    ("image F1-max", "image.image_f1max"),
    ("pixel AUROC", "full.pixel_auroc"),
    ("pixel AUPR", "full.pixel_aupr"),
    ("pixel F1-max", "full.pixel_f1max"),
    ("pixel AUPRO", "full.pixel_aupro"),
)
SPRO = "full.pixel_spro"  # a column where a row has it: MVTec LOCO is measured by it
HEADLINE = f"{SPRO}@0.05"  # [P] Bergmann et al., IJCV 2022: of several limits the one to compare by

# Operating points: section, what is counted there, and the figures shown.
COUNTED = (("image", "images"), ("full", "pixels"))
RATES = (("precision", "precision"), ("recall", "recall"), ("FPR", "fpr"), ("IoU", "iou"))
NAMES = {"auroc": "AUROC", "aupr": "AUPR", "f1max": "F1-max", "iou": "IoU", "aupro": "AUPRO", "spro": "sPRO"}


def leaderboard_markdown(
    boards: Mapping[str, Sequence[Place]], titles: Mapping[str, str], remarks: Sequence[str] = ()
) -> str:
    """A page with one table for each data set, its pixel metrics on the original images and masks.

    Below it, where records have such figures: what the rows reach at a threshold, and other projects' ways to
    compute beside our exact values.
    """
    page = ["# Leaderboard", ""]
    page.append(
        "Means over the categories within a seed, then over seeds (± sample standard deviation). Pixel"
        " metrics are those of the original images and untouched masks (`full`); `leaderboard.csv` has all,"
        " also in the geometry of the papers. Rows that miss categories stand last, their means in brackets."
        " Seconds and images per second are means over cells, on the hardware that `leaderboard.csv` names;"
        " memory is the peak." + _about_intervals(boards)
    )
    for dataset, board in sorted(boards.items()):
        shown = [*SHOWN, *_spro(board)]
        notes = Footnotes()
        bounds = [bound for place in board for _, name in shown if (bound := _of(place, name).bound)]
        inexact = bound_note(max(bounds)) if bounds else ""
        head = ["method", "family", "categories", "seeds", *(name for name, _ in shown)]
        head += ["fit s", "images/s", "memory MB", "model MB", "parameters M"]
        body = [_row(place, [metric for _, metric in shown], notes, inexact) for place in board]
        page += ["", f"## {escape(titles[dataset])}", "", *grid(head, body, left=2)]
        page += _footnotes(notes)
        page += _at_a_threshold(board)
        page += _elsewhere(board)
    page += bullets([escape(text) for text in remarks])
    return "\n".join(page) + "\n"


def _about_intervals(boards: Mapping[str, Sequence[Place]]) -> str:
    shown = [
        value.interval.level
        for board in boards.values()
        for _, name in [*SHOWN, *_spro(board)]
        for place in board
        if (value := _of(place, name)).interval
    ]
    if not shown:
        return ""
    levels = " or ".join(map(percent, sorted(set(shown))))
    return (
        f" `[±.007]`: the {levels} interval of a bootstrap over test images is within .007 of the mean, its"
        " ends are in `leaderboard.csv`; seeds share the test images, so more seeds do not narrow it."
    )


def _of(place: Place, name: str) -> Value:
    return place.metrics.get(name, MISSING)


def _spro(board: Sequence[Place]) -> list[tuple[str, str]]:
    """The column of sPRO, at the limit to compare by if there are several; none where no row has it."""
    found = sorted({name for place in board for name in place.metrics if name.startswith(SPRO)})
    chosen = HEADLINE if HEADLINE in found else next(iter(found), None)
    return [(metric_title(chosen), chosen)] if chosen else []


def metric_title(name: str) -> str:
    """`pixel sPRO@0.05` of `full.pixel_spro@0.05`."""
    plain, at, limit = name.partition(".")[2].partition("@")
    level, _, family = plain.partition("_")
    return f"{level} {NAMES.get(family, family)}{at}{limit}"


def _row(place: Place, metrics: Sequence[str], notes: Footnotes, inexact: str) -> list[str]:
    remarks = list(place.notes)
    for count, word in ((place.failed, "failed"), (place.skipped, "skipped")):
        if count:
            remarks.append(f"{count} cell{'s' if count > 1 else ''} {word}")
    letters = notes.mark(remarks)
    return [
        escape(name_of(place)) + (f"<sup>{letters}</sup>" if letters else ""),
        escape(taxonomy_title(place.taxonomy)),
        f"{place.done} of {place.total}",
        str(place.seeds),
        *(_metric(place, metric, notes, inexact) for metric in metrics),
        cost_text(place.costs["fit_seconds"]),
        cost_text(place.costs["images_per_second"]),
        cost_text(place.costs["device_peak_bytes"] or place.costs["host_peak_bytes"], 1e6),
        cost_text(place.costs["model_bytes"], 1e6),
        cost_text(place.costs["parameters"], 1e6),
    ]


def _metric(place: Place, name: str, notes: Footnotes, inexact: str) -> str:
    return metric_text(place, name, with_interval=True, inexact=_mark(_of(place, name), notes, inexact))


def _mark(value: Value, notes: Footnotes, inexact: str) -> str:
    """The letter of the footnote `inexact` after a bounded figure."""
    return f"<sup>{notes.mark([inexact])}</sup>" if value.bound else ""


def _mean(place: Place, value: Value) -> str:
    return "-" if value.mean is None else in_brackets(place, figure(value.mean))


def _at_a_threshold(board: Sequence[Place]) -> list[str]:
    """What the rows reach at the threshold of F1-max and at a given one; nothing where no record says."""
    notes = Footnotes()
    body = []
    for place in board:
        for section, counted in COUNTED:
            for kind in POINTS:
                point = f"{section}.{kind}."
                if not any(name.startswith(point) for name in place.points):
                    continue
                given = place.points.get(f"{point}threshold", MISSING).mean
                at = "F1-max" if kind == "f1max" else "given" if given is None else f"given, {given:g}"
                values = [place.points.get(point + key, MISSING) for _, key in RATES]
                bounded = section == "full" and _of(place, "full.pixel_f1max").bound
                mark = f"<sup>{notes.mark([NOT_EXACT])}</sup>" if bounded else ""
                rates = [_mean(place, value) for value in values]
                body.append([escape(name_of(place)), counted, at + mark, *rates])
    if not body:
        return []
    note = "Means over the categories; pixels are those of the original masks; - is not defined in every one."
    if any(row[2].startswith("F1-max") for row in body):
        note += (
            " F1-max is the threshold of the highest F1 of each category, tuned on the test set itself: an"
            " upper end."
        )
    head = ["method", "of", "threshold", *(name for name, _ in RATES)]
    return ["", "### At a threshold", "", *grid(head, body, left=3), *_footnotes(notes), "", note]


def _elsewhere(board: Sequence[Place]) -> list[str]:
    """Our exact values beside those of other projects' inexact ways; nothing where no record has such."""
    names = {name for place in board for name in place.compat}
    projects = sorted({name.partition(".")[0] for name in names})
    metrics = sorted({name.partition(".")[2] for name in names}, key=lambda name: metric_rank(f".{name}"))
    rows: list[tuple[Place, str, list[Value]]] = []
    bounds: list[float] = []
    for place in board:
        for metric in metrics:
            theirs = [place.compat.get(f"{project}.{metric}", MISSING) for project in projects]
            if all(value.mean is None for value in theirs):
                continue
            section = "image" if metric.startswith("image_") else "full"
            ours = [_of(place, f"{section}.{metric}"), _of(place, f"paper.{metric}")]
            bounds += [value.bound for value in ours if value.bound]
            rows.append((place, metric, [*ours, *theirs]))
    if not rows:
        return []
    notes = Footnotes()
    inexact = bound_note(max(bounds)) if bounds else ""
    body = [
        [escape(name_of(place)), metric_title(f".{metric}")]
        + [_mean(place, value) + _mark(value, notes, inexact) for value in values]
        for place, metric, values in rows
    ]
    head = ["method", "metric", "ours", "ours, geometry of the paper"]
    head += [escape(project) for project in projects]
    note = (
        "The same predictions computed as these projects do (bins, sampled thresholds, masks of their own):"
        " to compare with their published tables alone. No other table holds these values."
    )
    table = [*grid(head, body, left=2), *_footnotes(notes)]
    return ["", "### As other projects compute them", "", *table, "", note]


def _footnotes(notes: Footnotes) -> list[str]:
    return bullets([f"<sup>{letter}</sup> {escape(text)}" for text, letter in notes.letters.items()])
