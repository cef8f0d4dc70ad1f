"""An ensemble: the mean of its members' scores and maps, each member's brought to the range 0 to 1 before.

Paper: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, arXiv:2106.08265.
Reference: amazon-science/patchcore-inspection at fcaa92f, Apache-2.0 (bin/run_patchcore.py).
`transductive`, as in the reference, 0 and 1 are the lowest and the highest value of the whole test set: a
score then depends on the other test images. Else (ours) they are those of the training images, scored by the
fitted member, and values beyond them stay beyond.
Deviations from the reference:
  1. A member whose values are all the same counts as 0; the reference divides by zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError


class Ensemble(Method):
    """Members are methods of any kind; there is a map where each of them gives one, of the same size."""

    ranges: Tensor

    def __init__(self, members: Sequence[Method], transductive: bool):
        if not members:
            raise UsageError("an ensemble has at least one member; got none")
        super().__init__()
        self.members, self.transductive = nn.ModuleList(members), transductive
        self.register_buffer("ranges", torch.zeros(len(members), 2, 2))  # (member, scores or maps, from, to)

    def fit(self, train: TrainSet, run: Run) -> None:
        """Fit one member after the other."""
        for member in self._methods():
            member.fit(train, run)
        if not self.transductive:
            self.calibrate(train, run)

    @torch.no_grad()
    def calibrate(self, train: TrainSet, run: Run) -> None:
        """Take the ranges of the training images' scores and maps."""
        self.eval()
        for index, member in enumerate(self._methods()):
            seen = _Range()
            for batch in run.track(train.batches(), text=f"calibrate member {index + 1}"):
                seen.add(member.predict(Inputs(batch.images, batch.category)))
            self.ranges[index] = seen.bounds

    def predict(self, inputs: Inputs) -> Prediction:
        """The members' mean."""
        return next(self.predict_all([inputs]))

    def predict_all(self, batches: Iterable[Inputs]) -> Iterator[Prediction]:
        """The members' mean; `transductive`, every raw map is held on the host meanwhile."""
        if not self.transductive:
            for inputs in batches:
                yield _mean([member.predict(inputs) for member in self._methods()], self.ranges)
            return
        seen = [_Range() for _ in self.members]
        raw: list[list[Prediction]] = []
        for inputs in batches:
            raw.append([])
            for member, bounds in zip(self._methods(), seen, strict=True):
                scores, maps = member.predict(inputs)
                bounds.add(Prediction(scores, maps))
                raw[-1].append(Prediction(scores.cpu(), None if maps is None else maps.cpu()))
        ranges = torch.stack([one.bounds for one in seen]).cpu()
        while raw:
            yield _mean(raw.pop(0), ranges)

    def _methods(self) -> list[Method]:
        return [cast(Method, member) for member in self.members]


class _Range:
    """The lowest and highest score, and value of a map, of all that was added: `bounds` (2, 2)."""

    def __init__(self) -> None:
        self.bounds = torch.tensor([[torch.inf, -torch.inf]] * 2)

    def add(self, prediction: Prediction) -> None:
        for bounds, values in zip(self.bounds, prediction, strict=True):
            if values is not None:
                low, high = (value.cpu() for value in torch.aminmax(values))
                bounds[0], bounds[1] = torch.minimum(bounds[0], low), torch.maximum(bounds[1], high)


def _mean(predictions: Sequence[Prediction], ranges: Tensor) -> Prediction:
    """Of one batch; ranges (members, 2, 2)."""

    def mean(which: int) -> Tensor:
        found = []
        for one, (low, high) in zip(predictions, ranges[:, which], strict=True):
            values = cast(Tensor, one[which])
            width = high - low
            found.append(((values - low) / width) if width > 0 else torch.zeros_like(values))
        return torch.stack(found).mean(0)

    with_maps = all(one.maps is not None for one in predictions)
    return Prediction(mean(0), mean(1) if with_maps else None)
