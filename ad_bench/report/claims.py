"""What section 6 of the survey (Liu et al., arXiv 2301.11514) says of methods and metrics, tested on figures.

Twice: on the records at hand, and on the published figures, from which the survey drew its claims: there the
question is whether those figures bear them out. Every test is Wilcoxon's over blocks (categories of data
sets): in each block the claim's differences are averaged into one, as methods of a block share its images.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ad_bench import reference
from ad_bench.config import options
from ad_bench.report import choose
from ad_bench.report.choose import FULL, Block
from ad_bench.report.delimited import exact, to_csv
from ad_bench.report.markdown import bullets, escape, grid
from ad_bench.report.ranking import p_text
from ad_bench.report.rows import some_of
from ad_bench.report.significance import ALPHA, signed_rank
from ad_bench.report.tables import taxonomy_of
from ad_bench.report.text import figure

if TYPE_CHECKING:
    from ad_bench.report.board import Board
    from ad_bench.report.site import Extra

LEAST = 6  # blocks: with fewer no p of Wilcoxon's test is below 0.05
SATURATED = 0.95  # median pixel AUROC of a block above which it hardly tells methods apart
AVERAGE = "(average)"  # the block of a published average
_METRICS = ("image_auroc", "pixel_auroc", "pixel_aupr")

Source = Literal["records", "published"]
Verdict = Literal["supported", "contradicted", "undecided", "not enough records", "not enough figures"]
Key = tuple[str, str, str]  # method, variant, protocol
Held = dict[Block, tuple[float, float | None]]  # the figure and its standard error over test images
Figures = Mapping[str, Mapping[Key, Held]]  # by metric


@dataclass
class Found:
    """What a claim is tested on: in each block the difference that it says is positive, and whose it is."""

    differences: dict[Block, float]
    rows: list[str]


@dataclass(frozen=True)
class Claim:
    """A statement of the survey in our words. how: what is measured; missing: what would give records."""

    ident: str
    sentence: str
    how: str
    collect: Callable[[Figures], Found]
    missing: Callable[[Collection[str]], str]
    section: str = "6"


@dataclass(frozen=True)
class Evidence:
    """What one source says of a claim. `difference` and `p` are None where there are too few blocks."""

    claim: Claim
    source: Source
    verdict: Verdict
    found: Found
    difference: float | None
    p: float | None
    needed: str = ""

    @property
    def blocks(self) -> int:
        """How many blocks it rests on."""
        return len(self.found.differences)


def weigh(claim: Claim, source: Source, figures: Figures, built: Collection[str] = ()) -> Evidence:
    """The verdict of one source: none from fewer than LEAST blocks. built: the methods that can be run."""
    found = claim.collect(figures)
    found = Found({block: found.differences[block] for block in _finest(found.differences)}, found.rows)
    differences = list(found.differences.values())
    if len(differences) < LEAST:
        if source == "published":
            return Evidence(claim, source, "not enough figures", found, None, None)
        return Evidence(claim, source, "not enough records", found, None, None, claim.missing(built))
    test = signed_rank(differences)
    verdict: Verdict = "undecided"
    if test.p < ALPHA:
        verdict = "supported" if test.sign > 0 else "contradicted"
    return Evidence(claim, source, verdict, found, math.fsum(differences) / len(differences), test.p)


def evidence(board: Board, config_dirs: Sequence[Path] = ()) -> list[Evidence]:
    """Each claim by the records, then by the published figures."""
    ours, theirs = of_records(board), of_published()
    built = set(options("method", config_dirs))
    return [
        found
        for claim in CLAIMS
        for found in (weigh(claim, "records", ours, built), weigh(claim, "published", theirs))
    ]


def of_records(board: Board) -> Figures:
    """The figures of finished records, averaged over seeds; pixel metrics on the original masks."""
    found: dict[str, dict[Key, Held]] = {metric: {} for metric in _METRICS}
    for row in choose.rows_of(board).values():
        if taxonomy_of(row.method, next(iter(row.entries.values()))) == "baseline":
            continue  # the floor of every table: no claim is about it
        for metric in _METRICS:
            section, name = choose.section_of(metric)
            values: dict[Block, list[float]] = {}
            errors: dict[Block, list[float]] = {}
            for dataset, entry in row.entries.items():
                for _, of_seed in sorted(entry.figures(section, name).items()):
                    for category, value in of_seed.items():
                        block = (dataset, category)
                        values.setdefault(block, []).append(value.mean or 0.0)
                        if value.interval is not None:
                            errors.setdefault(block, []).append(value.interval.error)
            if values:
                found[metric][row.method, row.variant, row.protocol] = {
                    block: (statistics.fmean(own), _mean_error(own, errors.get(block, [])))
                    for block, own in values.items()
                }
    return found


def _mean_error(values: Sequence[float], errors: Sequence[float]) -> float | None:
    """The seeds' mean standard error, as they share the test images; None where a seed has none."""
    return statistics.fmean(errors) if len(errors) == len(values) else None


def of_published() -> Figures:
    """The published figures that are not suspect: by category, and each average as a block of its own."""
    found: dict[str, dict[Key, Held]] = {metric: {} for metric in _METRICS}
    for metric in _METRICS:
        for dataset in reference.datasets():
            rows = [row for row in reference.published(dataset, metric) if row.standing != "suspect"]
            for (method, protocol), row in reference.preferred(rows).items():
                values = dict(row.values)
                if row.average is not None:
                    values[AVERAGE] = row.average
                held = found[metric].setdefault((method, "", protocol), {})
                held |= {(dataset, category): (value, None) for category, value in values.items()}
    return found


def _extended(metric: str, suffix: str) -> Callable[[Figures], Found]:
    """Of each method named HOST_suffix the gain over its host, under the same variant and protocol."""

    def collect(figures: Figures) -> Found:
        gains: dict[Block, list[float]] = {}
        rows = []
        for (method, variant, protocol), held in sorted(figures[metric].items()):
            host = figures[metric].get((method.removesuffix(suffix), variant, protocol))
            if not method.endswith(suffix) or host is None:
                continue
            shared = _finest(held.keys() & host.keys())
            for block in shared:
                gains.setdefault(block, []).append(held[block][0] - host[block][0])
            if shared:
                rows.append(
                    f"{_name(method, variant, protocol)} and its host: {_mean_gain(held, host, shared)}"
                )
        return Found(_averaged(gains), rows)

    return collect


def _mean_gain(held: Held, host: Held, shared: Collection[Block]) -> str:
    gain = statistics.fmean(held[block][0] - host[block][0] for block in shared)
    return f"{figure(gain, 'difference')} over {len(shared)} block{'s' * (len(shared) > 1)}"


def _few_shot_gap(figures: Figures) -> Found:
    """In each block, how much smaller the gap to the same row on all images is at the most shots."""
    narrowed: dict[Block, list[float]] = {}
    rows = []
    by_row: dict[tuple[str, str], dict[int, Held]] = {}
    for (method, variant, protocol), held in figures["image_auroc"].items():
        shots = re.fullmatch(r"few_shot-(\d+)", protocol)
        if shots:
            by_row.setdefault((method, variant), {})[int(shots[1])] = held
    for (method, variant), by_shots in sorted(by_row.items()):
        whole = figures["image_auroc"].get((method, variant, FULL), {})
        for block in sorted(whole):
            known = sorted(shots for shots, held in by_shots.items() if block in held)
            if len(known) < 2:
                continue
            first, last = (whole[block][0] - by_shots[shots][block][0] for shots in (known[0], known[-1]))
            narrowed.setdefault(block, []).append(first - last)
            rows.append(
                f"{_name(method, variant, FULL)} on {'/'.join(block)}: gap {figure(first, 'difference')} at"
                f" {known[0]}, {figure(last, 'difference')} at {known[-1]} shots"
            )
    return Found(_averaged(narrowed), rows)


def _segments(method: str) -> bool | None:
    """True for a method that trains a head to segment planted defects; None where methods.csv does not say.

    By the survey's loss: the focal loss is that of such heads. Memory banks train none.
    """
    known = reference.methods().get(method)
    if known is None or not known["loss"] or known["taxonomy"] == "memory_bank":
        return None
    return "focal" in known["loss"]


def _heads(figures: Figures) -> Found:
    """In each block and row of the taxonomy: methods with such a head against those without, on average."""
    gains: dict[Block, list[float]] = {}
    kinds: dict[str, dict[bool, list[tuple[str, Held]]]] = {}
    for (method, variant, protocol), held in sorted(figures["pixel_aupr"].items()):
        has = _segments(method)
        if has is not None and not variant and protocol == FULL:
            taxonomy = reference.methods()[method]["taxonomy"]
            kinds.setdefault(taxonomy, {True: [], False: []})[has].append((method, held))
    rows = []
    for taxonomy, sides in kinds.items():
        found = {
            block: [[held[block][0] for _, held in sides[has] if block in held] for has in (True, False)]
            for block in sorted({block for side in sides.values() for _, held in side for block in held})
        }
        whole = {block: found[block] for block in _finest(b for b, values in found.items() if all(values))}
        for block, (having, lacking) in whole.items():
            gains.setdefault(block, []).append(statistics.fmean(having) - statistics.fmean(lacking))
        if whole:
            names = [
                ", ".join(method for method, held in sides[has] if held.keys() & whole)
                for has in (True, False)
            ]
            rows.append(f"{reference.TAXONOMIES.get(taxonomy, taxonomy)}: {names[0]} against {names[1]}")
    return Found(_averaged(gains), rows)


@dataclass(frozen=True)
class Both:
    """AUROC and AUPR of one row in one block, each with its standard error."""

    key: Key
    auroc: tuple[float, float | None]
    aupr: tuple[float, float | None]


def _saturated(figures: Figures) -> dict[Block, list[Both]]:
    """Blocks where the pixel AUROC saturates: one row a method (as a ranking picks it), at least three."""
    blocks: dict[Block, dict[str, Both]] = {}
    for key in sorted(figures["pixel_auroc"], key=lambda key: (key[0], len(key[1]), key[1])):
        auprs = figures["pixel_aupr"].get(key, {})
        for block, auroc in figures["pixel_auroc"][key].items():
            if key[2] == FULL and block in auprs:
                blocks.setdefault(block, {}).setdefault(key[0], Both(key, auroc, auprs[block]))
    enough = {block: list(rows.values()) for block, rows in blocks.items() if len(rows) >= 3}
    return {
        block: enough[block]
        for block in _finest(enough)
        if statistics.median(row.auroc[0] for row in enough[block]) >= SATURATED
    }


def _spread(figures: Figures) -> Found:
    """In each saturated block: standard deviation over methods of the AUPR minus that of the AUROC."""
    blocks = _saturated(figures)
    differences = {
        block: statistics.stdev(row.aupr[0] for row in rows) - statistics.stdev(row.auroc[0] for row in rows)
        for block, rows in blocks.items()
    }
    return Found(differences, _taken(blocks.values()))


def _separation(figures: Figures) -> Found:
    """In each saturated block: how many standard errors two methods are apart, by AUPR minus by AUROC."""
    differences, used = {}, []
    for block, rows in _saturated(figures).items():
        known = [row for row in rows if row.auroc[1] is not None and row.aupr[1] is not None]
        by_auroc, by_aupr = _apart([row.auroc for row in known]), _apart([row.aupr for row in known])
        if by_auroc is not None and by_aupr is not None:
            differences[block] = by_aupr - by_auroc
            used.append(known)
    return Found(differences, _taken(used))


def _apart(values: Sequence[tuple[float, float | None]]) -> float | None:
    """The mean over pairs of |difference| / its standard error; None of fewer than three, or no errors."""
    ratios = []
    for (a, error_a), (b, error_b) in combinations(values, 2):
        error = math.hypot(error_a or 0.0, error_b or 0.0)
        if error == 0:
            return None
        ratios.append(abs(a - b) / error)
    return statistics.fmean(ratios) if len(values) >= 3 else None


def _taken(blocks: Iterable[Sequence[Both]]) -> list[str]:
    names = sorted({_name(*row.key) for rows in blocks for row in rows})
    return [", ".join(names)] if names else []


def _name(method: str, variant: str, protocol: str) -> str:
    return choose.Row(method, variant, protocol).name


def _averaged(by_block: Mapping[Block, Sequence[float]]) -> dict[Block, float]:
    return {block: statistics.fmean(values) for block, values in sorted(by_block.items())}


def _finest(blocks: Iterable[Block]) -> list[Block]:
    """Without the average of a data set that has categories among `blocks`: it would count them twice."""
    found = sorted(blocks)
    parted = {dataset for dataset, category in found if category != AVERAGE}
    return [block for block in found if block[1] != AVERAGE or block[0] not in parted]


def _needs_extended(suffix: str) -> Callable[[Collection[str]], str]:
    def missing(built: Collection[str]) -> str:
        hosts = sorted(name.removesuffix(suffix) for name in built if name.endswith(suffix))
        names = [name for host in hosts if host in built for name in (host, host + suffix)]
        if names:
            return f"adbench run -m method={','.join(names)} dataset=mvtec"
        survey = ", ".join(name for name in reference.methods() if name.endswith(suffix))
        return (
            f"a method that this version has not: {survey}; with it, adbench run -m method=HOST,HOST{suffix}"
        )

    return missing


def _needs_shots(built: Collection[str]) -> str:
    return (
        "adbench run method=patchcore dataset=mvtec, then"
        " adbench run -m method=patchcore dataset=mvtec protocol=few_shot protocol.shots=1,2,4,8"
    )


def _needs_heads(built: Collection[str]) -> str:
    known = {name: reference.methods()[name]["taxonomy"] for name in built if _segments(name) is not None}
    both = {
        taxonomy
        for taxonomy in known.values()
        if {_segments(name) for name, own in known.items() if own == taxonomy} == {True, False}
    }
    names = sorted(name for name, taxonomy in known.items() if taxonomy in both)
    return f"adbench run -m method={','.join(names)} dataset=mvtec, the settings as they are"


def _needs_metrics(built: Collection[str]) -> str:
    known = dict.fromkeys(row.method for row in reference.published("mvtec", "pixel_aupr"))
    names = [name for name in known if name in built][:4]
    return f"adbench run -m method={','.join(names)} dataset=mvtec"


CLAIMS = (
    Claim(
        "ensembles",
        "An ensemble finds defective images better than the one method that it is made of.",
        "image AUROC of HOST_ensemble minus that of HOST, same variant and protocol",
        _extended("image_auroc", "_ensemble"),
        _needs_extended("_ensemble"),
    ),
    Claim(
        "sspcab",
        "Putting the SSPCAB block into a reconstruction method improves it.",
        "image AUROC of HOST_sspcab minus that of HOST, same variant and protocol",
        _extended("image_auroc", "_sspcab"),
        _needs_extended("_sspcab"),
    ),
    Claim(
        "few_shot_gap",
        "The gap between few training images and all of them narrows as images are added.",
        "image AUROC: gap to the same row on all images, at the fewest shots minus at the most",
        _few_shot_gap,
        _needs_shots,
    ),
    Claim(
        "segmentation_heads",
        "A head that is trained to segment planted defects helps to find where a defect is.",
        "pixel AUPR: methods with such a head (focal loss in methods.csv) minus those without, on average, in"
        " the same row of the taxonomy; rows without a variant. No ablation: methods differ in more than it",
        _heads,
        _needs_heads,
    ),
    Claim(
        "aupr_spreads",
        "Where the pixel AUROC saturates, methods still lie far apart in pixel AUPR.",
        "standard deviation over at least three methods of the AUPR minus that of the AUROC, in blocks whose"
        f" median AUROC is at least {SATURATED}; one row a method, the floor (random, mean image) left out."
        " The AUPR has more room below 1, and more scatter: see the next claim",
        _spread,
        _needs_metrics,
    ),
    Claim(
        "aupr_separates",
        "Where the pixel AUROC saturates, the pixel AUPR tells methods apart better than chance explains.",
        "standard errors (bootstrap over test images) that two methods are apart on average, by AUPR minus by"
        " AUROC, in the same blocks; published figures have no standard errors",
        _separation,
        _needs_metrics,
    ),
)


def files(found: Sequence[Evidence], home: Path) -> dict[Path, str]:
    """`claims.md` and `claims.csv` below `home`, and what they hold."""
    return {home / "claims.md": claims_markdown(found), home / "claims.csv": claims_csv(found)}


def extras(found: Sequence[Evidence]) -> list[Extra]:
    """The site's page of the claims."""
    from ad_bench.report.site import Extra

    rows = [
        [
            one.claim.sentence,
            one.source,
            one.verdict,
            _figures(one),
            f"{'; '.join(one.found.rows)} {one.needed}",
        ]
        for one in found
    ]
    head = ["claim", "figures", "verdict", "evidence", "rows, or what is needed"]
    return [Extra("claims", TITLE, [_INTRODUCTION], head, rows)]


def claims_csv(found: Sequence[Evidence]) -> str:
    """For each claim and source a line `verdict`, then a line `block` for each difference it rests on."""
    head = [
        "claim",
        "source",
        "line",
        "verdict",
        "blocks",
        "dataset",
        "category",
        "difference",
        "p",
        "rows",
        "needed",
    ]
    lines = []
    for one in found:
        name = [one.claim.ident, one.source]
        figures = [exact(one.difference), exact(one.p), "; ".join(one.found.rows), one.needed]
        lines.append([*name, "verdict", one.verdict, exact(one.blocks), "", "", *figures])
        for (dataset, category), difference in one.found.differences.items():
            lines.append([*name, "block", "", "", dataset, category, exact(difference), "", "", ""])
    return to_csv(head, lines)


TITLE = "The survey's claims, tested"
_INTRODUCTION = (
    "Statements of section 6 of the survey (arXiv 2301.11514), in our words. A verdict rests on Wilcoxon's"
    f" signed-rank test, two-sided, at {ALPHA}, over at least {LEAST} blocks (categories of data sets); p is"
    " not corrected for the number of claims. Records: what was run here. Published: the figures that the"
    " survey and other papers print, suspect ones left out; papers differ in their settings."
)


def claims_markdown(found: Sequence[Evidence]) -> str:
    """The whole page: a table of verdicts, then each claim with its evidence."""
    page = [f"# {TITLE}", ""]
    page += [escape(_INTRODUCTION), ""]
    claims = list(dict.fromkeys(one.claim for one in found))
    body = [
        [escape(claim.sentence), *(_verdict(one) for one in found if one.claim is claim)] for claim in claims
    ]
    page += grid(["claim", "records", "published"], body, left=3)
    for claim in claims:
        page += ["", f"## {escape(claim.sentence)}", "", f"Measured: {escape(claim.how)}."]
        page += bullets([_line(one) for one in found if one.claim is claim])
    return "\n".join(page) + "\n"


def _verdict(one: Evidence) -> str:
    return f"**{one.verdict}**" if one.p is not None else one.verdict


def _line(one: Evidence) -> str:
    text = f"{one.source}: **{one.verdict}**; {escape(_figures(one))}"
    if one.found.rows:
        text += f". Rows: {escape(_some(one.found.rows))}"
    return text + (f". Needed: {escape(one.needed)}" if one.needed else "") + "."


def _figures(one: Evidence) -> str:
    if one.p is None or one.difference is None:
        return f"{one.blocks} of at least {LEAST} blocks"
    positive = sum(value > 0 for value in one.found.differences.values())
    return (
        f"mean difference {figure(one.difference, 'difference')} over {one.blocks} blocks,"
        f" positive in {positive}, p {p_text(one.p, True)}"
    )


def _some(rows: Sequence[str], limit: int = 12) -> str:
    return some_of(rows, limit, "; ") + (" (claims.csv)" if len(rows) > limit else "")


def brief(found: Sequence[Evidence]) -> list[str]:
    """A line for each claim: what the records say, what the published figures."""
    claims = list(dict.fromkeys(one.claim for one in found))
    return [
        f"{claim.sentence} "
        + ", ".join(f"{one.source}: {one.verdict}" for one in found if one.claim is claim)
        for claim in claims
    ]
