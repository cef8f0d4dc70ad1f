"""The supervised protocol: a few labelled anomalies train beside all normal images (open-set).

draw=general and draw=hard: Ding, Pang, Shen, "Catching Both Gray and Black Swans: Open-set Supervised Anomaly
Detection", CVPR 2022, arXiv:2203.14506; Choubo/DRA at 3fb0e9c, datasets/mvtecad.py.
draw=devnet: Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks",
arXiv:2108.00462; Choubo/deviation-network-image at 7a13ee6, datasets/mvtecad.py.
draw=spread: Yao et al., "Explicit Boundary Guided Semi-Push-Pull Contrastive Learning for Supervised Anomaly
Detection", CVPR 2023, arXiv:2207.01463; xcyao00/BGAD at ea74572, datasets/mvtec.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ad_bench.errors import UsageError, closest
from ad_bench.protocols.lists import (
    anomalous,
    by_name,
    check_count,
    draw,
    kinds,
    no_normals,
    normals,
    tests,
    without,
)
from ad_bench.samples import Group, Sample

DRAWS = ("general", "hard", "devnet", "spread")


@dataclass(frozen=True)
class Drawn:
    """What a way to draw gives: the anomalies that train, the tests, and why there is nothing to run."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    reason: str | None = None


def supervised(
    samples: Mapping[str, tuple[Sample, ...]],
    seed: int,
    anomalies: int,
    draw: str = "general",
    known: str | None = None,
) -> Iterator[Group]:
    """One group a category: all its normal training images and `anomalies` of the test set, with labels.

    What trains is not tested. general: at random over all kinds of defects. hard: of the kind `known` alone,
    which is then tested nowhere; sweep over the kinds for the published mean. devnet: as general, but a
    category with fewer than twice as many is refused. spread: as many of every kind, what cannot be divided
    at random. Fewer anomalies are part of more with the same seed, but for `spread`.
    """
    check_count("anomalies", anomalies, 1, "For none, use full")
    if draw not in DRAWS:
        raise UsageError(
            f"protocol.draw is one of {', '.join(DRAWS)}; got {draw!r}.{closest(str(draw), DRAWS)}"
        )
    if (known is None) == (draw == "hard"):
        raise UsageError(_known(samples, known, draw))
    for category, listed in samples.items():
        train, whole = normals(listed), tests(listed)
        found = _draw(category, whole, anomalies, seed, draw, known)
        reason = found.reason if train else no_normals(category)
        if reason is None and not anomalous(found.test):
            reason = (
                f"'{category}' has {len(anomalous(whole))} anomalous test images, and none is left to test: "
                "take a smaller protocol.anomalies"
            )
        notes = {
            "draw": draw,
            "known": known,
            "anomalies": anomalies,
            "anomalies_drawn": [sample.name for sample in found.train],
        }
        labelled = (replace(sample, split="train") for sample in found.train)
        yield Group(
            category, by_name((*train, *labelled)), {category: found.test}, skipped=reason, notes=notes
        )


def _draw(
    category: str, whole: tuple[Sample, ...], count: int, seed: int, how: str, known: str | None
) -> Drawn:
    there, purpose = anomalous(whole), f"supervised:{category}"
    if how == "hard":
        known_ones = [sample for sample in there if sample.defect == known]
        if not known_ones:
            return Drawn((), whole, f"'{category}' has no defects '{known}'; it has: {_listed(there)}")
        rest = without(whole, known_ones)
        if not anomalous(rest):
            return Drawn((), rest, f"'{category}' has no defects beside '{known}': nothing unknown to test")
        return Drawn(draw(known_ones, count, seed, purpose), rest)
    if how == "devnet" and count > len(there) / 2:
        text = f"'{category}' has {len(there)} anomalous test images, {count} were asked for"
        return Drawn((), whole, f"{text}; protocol.draw=devnet takes at most half")
    if how == "spread" and there:
        names = kinds(there)
        each = [
            draw((s for s in there if s.defect == name), count // len(names), seed, f"{purpose}:{name}")
            for name in names
        ]
        drawn = tuple(sample for part in each for sample in part)
        held = {sample.name for sample in drawn}
        rest = tuple(sample for sample in there if sample.name not in held)
        drawn += draw(rest, count % len(names), seed, purpose)
    else:
        drawn = draw(there, count, seed, purpose)
    return Drawn(drawn, without(whole, drawn))


def _known(samples: Mapping[str, tuple[Sample, ...]], known: str | None, how: str) -> str:
    if known is not None:
        return f"protocol.known={known} belongs to protocol.draw=hard; got draw={how}"
    there = [f"{category}: {_listed(anomalous(tests(listed)))}" for category, listed in samples.items()]
    return (
        "protocol.draw=hard needs protocol.known, the kind of defect that trains; each in turn: "
        f"-m protocol.known=a,b. There are {'; '.join(there)}"
    )


def _listed(samples: tuple[Sample, ...]) -> str:
    return ", ".join(kinds(samples)) or "none"
