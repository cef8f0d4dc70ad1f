"""Anomaly maps as pictures: one colour scale of a method for a whole data set, put on a palette in place.

A map is kept as a PNG of grey levels with the score that each level stands for. Which colour a score gets is
decided when a page is made, from all cells of the method: that rewrites the palette and decodes no pixel.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Colours = NDArray[np.uint8]

# inferno of matplotlib (CC0) at 16 of its 256 places: evenly lighter to the eye and to the colour-blind.
_INFERNO = (
    *("000004", "0c0826", "240c4f", "420a68", "5d126e", "781c6d", "932667", "ae305c"),
    *("c73e4c", "dd513a", "ed6925", "f8850f", "fca50a", "fac62d", "f2e661", "fcffa4"),
)
SCALE = (0.5, 0.999)  # the shares of all test pixels at the ends of a scale: half of them lie below its start
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def colour(values: ArrayLike) -> Colours:
    """Values in [0, 1], any shape S -> RGB (*S, 3); what lies outside gets the colour of the end."""
    import numpy as np

    table = np.array([[int(one[i : i + 2], 16) for i in (0, 2, 4)] for one in _INFERNO], float)
    places = np.clip(np.asarray(values, float), 0.0, 1.0) * (len(table) - 1)
    channels = [np.interp(places, np.arange(len(table)), table[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def scale(cells: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The score at the start and at the end of the scale of all cells together, end > start.

    cells: `quantiles` of each cell's pictures.json: shares `at`, their `values` and the number of `pixels`.
    Between two quantiles a cell counts as even. Raises ValueError without cells.
    """
    import numpy as np

    if not cells:
        raise ValueError("a scale needs the quantiles of one cell at least")
    knots = np.unique(np.concatenate([np.asarray(cell["values"], float) for cell in cells]))
    weights = np.array([float(cell["pixels"]) for cell in cells])
    shares = sum(
        weight * _share_below(knots, cell)
        for weight, cell in zip(weights / weights.sum(), cells, strict=True)
    )
    low, high = (float(np.interp(at, shares, knots)) for at in SCALE)
    if high <= low:  # most pixels share one score
        high = float(knots[-1])
    return low, high if high > low else float(np.nextafter(low, np.inf))


def _share_below(knots: Any, cell: Mapping[str, Any]) -> Any:
    """The share of a cell's pixels up to each score; of a score that holds many pixels, all of them."""
    import numpy as np

    values, at = np.asarray(cell["values"], float), np.asarray(cell["at"], float)
    last = np.append(values[1:] > values[:-1], True)  # a score that several quantiles share: its upper end
    return np.interp(knots, values[last], at[last], left=0.0, right=1.0)


def recoloured(png: bytes, levels: Sequence[float], low: float, high: float) -> bytes:
    """The same indexed PNG with the colours of a scale from `low` to `high`; levels: the score of each index.

    Raises ValueError for what is no indexed PNG of as many colours.
    """
    import numpy as np

    values = (np.asarray(levels, float) - low) / (high - low)
    palette = colour(values).tobytes()
    if not png.startswith(_SIGNATURE):
        raise ValueError("no PNG")
    place = len(_SIGNATURE)
    while place + 12 <= len(png):
        length = int(struct.unpack(">I", png[place : place + 4])[0])
        kind = png[place + 4 : place + 8]
        if kind == b"PLTE":
            if length != len(palette):
                raise ValueError(f"a palette of {length // 3} colours for {len(levels)} levels")
            body = kind + palette
            return png[: place + 4] + body + struct.pack(">I", zlib.crc32(body)) + png[place + 12 + length :]
        place += 12 + length
    raise ValueError("a PNG without palette")
