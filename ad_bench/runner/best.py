"""The best test epoch, where a paper's published figure is one: a second figure, marked, never the result.

Choosing an epoch by the test images makes a method look better than it is. The result of a cell is that of
its last epoch; beside it stands what the paper's way of choosing would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ad_bench.errors import PredictionError

Values = Mapping[str, Mapping[str, float]]  # by geometry and metric


class Tested:
    """What the cells of one fit score after some of its epochs. Part of every checkpoint.

    score: gives every cell's values by category, from the method as it is.
    wanted: so many epochs of a training are scored, evenly spread, its last one among them.
    """

    def __init__(self, score: Callable[[], Mapping[str, Values]], wanted: int) -> None:
        self.score, self.wanted = score, wanted
        self.held: list[dict[str, Any]] = []
        self.seconds = 0.0  # that this process spent on them: no part of the training

    def due(self, epoch: int, count: int) -> bool:
        """True for epochs to score on the way; the last one is scored when the fit has ended."""
        return epoch + 1 < count and (epoch + 1) * self.wanted // count > epoch * self.wanted // count

    def take(self, epoch: int) -> None:
        """Score the method as it is after `epoch`; one that gives no finite scores yet is left out."""
        with suppress(PredictionError):
            self.held.append({"epoch": epoch + 1, "cells": self.score()})

    def best(self, category: str, last: Values) -> dict[str, Any]:
        """The best value of every metric of one cell, each with its epoch; `last`: after the last one."""
        rivals: list[tuple[int | None, Values]] = [
            (one["epoch"], one["cells"][category]) for one in self.held if category in one["cells"]
        ]
        rivals.append((None, last))
        return {"tested": len(rivals), "metrics": {where: _best(where, rivals) for where in last}}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and names."""
        return {"held": self.held}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up again."""
        self.held = list(state_dict["held"])


def _best(where: str, rivals: Sequence[tuple[int | None, Values]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for epoch, values in rivals:
        for metric, value in values[where].items():
            if value == value and (metric not in found or value >= found[metric]["value"]):
                found[metric] = {"value": value, "epoch": "last" if epoch is None else epoch}
    return found
