"""Anomaly maps over images: what a colour and a line mean, pixel by pixel."""

from __future__ import annotations

import numpy as np

from ad_bench.heat import colour
from ad_bench.heatmaps import STRONGEST, UNSEEN, line_width, outline, overlay


def test_the_start_of_the_scale_is_the_image_and_its_end_the_heat() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    drawn = overlay(image, np.array([[-9.0, 1.0, 3.0, 99.0]], np.float32), 1.0, 3.0)
    end = np.rint((1 - STRONGEST) * 100 + STRONGEST * colour(1.0))
    assert drawn[0].tolist() == [[100] * 3, [100] * 3, end.tolist(), end.tolist()]


def test_what_was_not_seen_is_dark() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    drawn = overlay(image, np.array([[-np.inf, 0.0]], np.float32), 0.0, 1.0)
    assert drawn[0].tolist() == [[round(100 * UNSEEN)] * 3, [100] * 3]


def test_the_line_runs_outside_and_at_the_edge_inside() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    ring = np.zeros((5, 5), bool)
    ring[1:4, 1:4] = True
    ring[2, 2] = False
    assert (outline(mask, 1) == ring).all()
    mask[:] = True
    frame = np.ones((5, 5), bool)
    frame[1:4, 1:4] = False
    assert (outline(mask, 1) == frame).all()
    assert not outline(np.zeros((3, 4), bool), 2).any()
    assert (line_width((100, 90)), line_width((10, 2000))) == (1, 5)
