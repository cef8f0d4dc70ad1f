"""Exact metrics of the benchmark: `evaluate_maps` for values, `evaluate` for reasons and thresholds too."""

from ad_bench.metrics.evaluation import (
    AUPRO_LIMIT,
    Evaluation,
    catalogue,
    check_names,
    evaluate,
    evaluate_maps,
)
from ad_bench.metrics.measures import at_threshold
from ad_bench.metrics.ranking import Ranking, rank_images, rank_pixels
from ad_bench.metrics.truth import PixelTruth

__all__ = [
    "AUPRO_LIMIT",
    "Evaluation",
    "PixelTruth",
    "Ranking",
    "at_threshold",
    "catalogue",
    "check_names",
    "evaluate",
    "evaluate_maps",
    "rank_images",
    "rank_pixels",
]
