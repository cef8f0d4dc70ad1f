"""`samples.csv`: the image score of every test image, beside the record."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from ad_bench.samples import Sample

SCORES = "samples.csv"
COLUMNS = ("path", "label", "defect", "score")


def write_scores(folder: Path, samples: Sequence[Sample], scores: Iterable[float]) -> None:
    """One line an image, in the order of the samples; a score is written so that reading gives it back."""
    with (folder / SCORES).open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(COLUMNS)
        rows.writerows(
            [s.name, s.label, s.defect, repr(float(v))] for s, v in zip(samples, scores, strict=True)
        )
