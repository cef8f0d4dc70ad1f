"""Simplex noise: smooth random fields from gradients on a lattice of simplices, several octaves deep.

Perlin, Noise hardware, SIGGRAPH course 2001. The lattice, its gradients and its kernel are those of
OpenSimplex (2014) as in lmas/opensimplex, of which Julian-Wyatt/AnoDDPM at 3052f04 holds a fork (simplex.py).
Every lattice point within reach adds its share here; there some are left out where they add least, which
makes jumps of up to 2e-4 in fields of about -0.9 to 0.9.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ad_bench.errors import UsageError

# From the lowest corner of a cell of the stretched lattice: all points that are within reach of its inside.
_NEAR = sorted(
    {
        order
        for corner in ("000", "001", "011", "111", "-01", "-11", "002", "012")
        for order in itertools.permutations(-1 if one == "-" else int(one) for one in corner)
    }
)
# To the corners of a rhombicuboctahedron, in the order of OpenSimplex's table.
_GRADIENTS = [
    [sign * (11 if axis == long else 4) for axis, sign in enumerate((x, y, z))]
    for z, y, x, long in itertools.product((1, -1), (1, -1), (-1, 1), range(3))
]
_NORM = 103  # brings the values between -1 and 1


def random_tables(count: int, generator: torch.Generator) -> Tensor:
    """(count, 256): permutations of 0 to 255, each of which is one field."""
    return torch.stack([torch.randperm(256, generator=generator) for _ in range(count)])


def simplex_noise(points: Tensor, tables: Tensor) -> Tensor:
    """(3, N) places x, y, z and (C, 256) permutations -> (C, N): each permutation's field there, within 1."""
    stretched = points - points.sum(0) / 6
    cell = stretched.floor()
    inside = stretched - cell
    offset = inside + inside.sum(0) / 3  # of the places from their cells' lowest corners, no longer stretched
    near = torch.tensor(_NEAR, device=points.device)
    away = (near + near.sum(1, keepdim=True) / 3).to(points)
    weight = 2 - away.square().sum(1)[:, None] - offset.square().sum(0) + 2 * (away @ offset)
    reached = (weight > 0).flatten().nonzero()[:, 0]  # about 6 of the 26 of each place
    which = torch.div(reached, points.shape[1], rounding_mode="floor")
    place = reached - which * points.shape[1]
    x, y, z = (cell.long().index_select(1, place) + near.t().index_select(1, which)) & 255
    hashed = tables.index_select(1, x) + y & 255
    hashed = tables.gather(1, hashed) + z & 255
    gradient = (tables % 24).gather(1, hashed)
    gradients = torch.tensor(_GRADIENTS, device=points.device).to(points)
    along = torch.take(gradients @ offset, gradient * points.shape[1] + place)
    along -= torch.take(gradients @ away.t(), gradient * len(away) + which)
    shares = weight.flatten().index_select(0, reached).pow(4) * along / _NORM
    return points.new_zeros(len(tables), points.shape[1]).index_add_(1, place, shares)


def simplex_octaves(
    tables: Tensor, depth: float, size: tuple[int, int], octaves: int, persistence: float, frequency: float
) -> Tensor:
    """(C, 256) permutations -> (C, *size) float64: slices at `depth` through fields of `octaves` octaves.

    frequency: pixels of a lattice step in the first octave, half as many in each next one, whose share of the
    sum is `persistence` of the one before. Not scaled to any variance.
    """
    if octaves < 1 or frequency <= 0:
        raise UsageError(f"octaves and frequency are above 0; got {octaves}, {frequency}")
    rows, columns = (
        torch.arange(side, dtype=torch.float64, device=tables.device).view(shape)
        for side, shape in zip(size, ((-1, 1), (1, -1)), strict=True)
    )
    places = torch.stack(torch.broadcast_tensors(columns, rows, rows.new_full((1, 1), depth))).flatten(1)
    total = places.new_zeros(len(tables), places.shape[1])
    for octave in range(octaves):
        total += persistence**octave * simplex_noise(places / (frequency / 2**octave), tables)
    return total.view(len(tables), *size)
