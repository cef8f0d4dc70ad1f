"""When our row cannot confirm or refute a published one, and why: the one place that decides it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ad_bench.reference import Published
from ad_bench.report.rows import Entry, Record, shorten, under, without_folders

TRIED = ("reference", "paper")  # fidelities that can speak for a paper
SHARED = ("unified", "continual")  # one model for all categories: those that it learnt change every figure
LISTED = 6  # of a long list; the rest is counted


@dataclass(frozen=True)
class Reason:
    """Why a pair is not comparable: `short` for a footnote that others share, `full` with the details."""

    short: str
    full: str


def why_not(entry: Entry, published: Published, total: int) -> tuple[Reason, ...]:
    """Every reason against comparing a row of ours with a published one; empty where they are comparable.

    `total` is the number of categories of the data set. Reasons that depend on a figure (an average over
    some categories, the choice of an epoch) are those of `reproduction`.
    """
    found: list[Reason] = []
    if published.standing == "suspect":
        found.append(Reason("published value suspect", f"published value suspect: {published.note}"))
    found += _other_protocol(entry.protocol, published)
    found += _of_entry(entry)
    if entry.protocol.partition("-")[0] in SHARED:
        learnt = len({record["category"] for record in entry.done()})
        if learnt < total:
            text = f"one model for all categories: {learnt} of {total} here"
            found.append(Reason("trained on some categories", text))
    return tuple(found)


def _other_protocol(protocol: str, published: Published) -> list[Reason]:
    if protocol == published.protocol:
        return []
    if not published.comparable(protocol):
        return [Reason("other protocol", f"ours under {protocol}, published under {published.protocol}")]
    ratio = re.fullmatch(r"noisy-(0\.\d+)", protocol)
    if ratio and f"{100 * float(ratio[1]):g}% noise" in published.note:
        return []
    text = f"ours under {protocol}, published as {published.protocol} without its details"
    return [Reason("details of the published protocol not stated", text)]


def _of_entry(entry: Entry) -> list[Reason]:
    """What the records of a row say against it, whatever is published."""
    records = entry.done()
    marks = list(dict.fromkeys(str(mark) for record in records for mark in record.get("marks") or ()))
    weights = _weights(records, marks)
    foreign = "geometry of the data set" in marks
    found = _settings(entry, bool(weights), foreign) + weights
    if foreign:
        found.append(Reason("geometry of the data set", "geometry of the data set, not of the paper"))
    if any(under(record, "notes").get("textures") == "procedural" for record in records):
        found.append(Reason("textures stood in", "made textures stand in for the paper's pictures"))
    programs = [mark for mark in marks if mark.startswith("maps of another program")]
    found += [Reason("maps of another program", mark) for mark in programs]
    levels = {record.get("fidelity") for record in records} - set(TRIED)
    if levels and not programs:
        level = ", ".join(sorted(str(level or "not stated") for level in levels))
        found.append(Reason(f"fidelity: {level}", f"fidelity {level}: cannot speak for the paper"))
    return found


def _settings(entry: Entry, weights: bool, geometry: bool) -> list[Reason]:
    """What the run changed; a change that another reason names in full is not named twice."""
    known = changed(entry.records)
    if known is None:
        variant = str(entry.newest.get("variant") or "")  # a row's may name the lab that it is from
        if not variant:
            return []
        if "=" not in variant:
            return [Reason("settings changed", "settings changed: " + in_config(variant))]
        known = re.split(r",(?=[\w.]+=)", variant)
    named = (*(("backbone=", "backbone.") if weights else ()), *(("dataset.input=",) if geometry else ()))
    rest = [text for text in known if not text.startswith(named)] if named else known
    return [Reason("settings changed", f"settings changed: {listed(rest)}")] if rest else []


def changed(records: Sequence[Record]) -> list[str] | None:
    """The settings that any of the records changed, by name; None where one does not say."""
    held = [record.get("settings") for record in records]
    if not all(isinstance(settings, list) for settings in held):
        return None
    return sorted({str(text) for settings in held for text in settings or ()})


def in_config(variant: str) -> str:
    """Where an older record, which has no `settings`, keeps what a row named by hand changed."""
    return f"those of variant {shorten(variant, 40)} are in its config.yaml"


def settings_note(record: Record) -> str | None:
    """The footnote of a record whose variant was named by hand; None where its name says all."""
    variant, settings = str(record.get("variant") or ""), record.get("settings")
    if not isinstance(settings, list):
        return f"variant {shorten(variant, 40)}: settings in its config.yaml" if _by_hand(variant) else None
    texts = [str(text) for text in settings]
    if not texts or ",".join(texts) == variant:
        return None
    return f"variant {shorten(variant, 40)}: {listed(texts)}" if variant else f"settings: {listed(texts)}"


def _by_hand(variant: str) -> bool:
    return bool(variant) and "=" not in variant


def _weights(records: Sequence[Record], marks: Sequence[str]) -> list[Reason]:
    """Other networks than the method's own, random ones, and files that do not say what they are."""
    found = [Reason("other backbone", mark) for mark in marks if mark.startswith("backbone ")]
    if not found:
        names = {
            str(weights.get("name"))
            for record in records
            for weights in record.get("weights") or ()
            if weights.get("as_paper") is False
        }
        found = [Reason("other backbone", f"backbone {name}, not the method's own") for name in sorted(names)]
    if "random backbone weights" in marks:
        found.append(Reason("random weights", "random backbone weights"))
    if "weights of unknown tag" in marks:
        found.append(
            Reason("weights of unknown tag", "weights of unknown tag: may be others than the paper's")
        )
    return found


def listed(texts: Sequence[str], limit: int = LISTED, each: int = 60, sign: str = ", ") -> str:
    """`a, b and 4 more`, each of at most `each` characters and without folders of a machine."""
    shown = [
        shorten(without_folders(text), each) for text in texts[: limit if len(texts) > limit + 1 else None]
    ]
    return sign.join(shown) + (f" and {len(texts) - len(shown)} more" if len(shown) < len(texts) else "")
