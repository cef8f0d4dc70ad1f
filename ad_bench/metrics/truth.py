"""Where the defects of a test set are: read once from its masks, then used by every ranking over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Spots = NDArray[np.int32]  # a file of 2^31 pixels is none that this package opens


class Seen(Sequence["NDArray[np.bool_] | None"]):
    """Of each image the pixels that count, flat, None where all do; kept as bits, an eighth of the mask."""

    def __init__(self, images: Iterable[NDArray[np.bool_] | None]) -> None:
        self._bits = [None if image is None else (np.packbits(image), image.size) for image in images]

    def __len__(self) -> int:
        return len(self._bits)

    @overload
    def __getitem__(self, image: int) -> NDArray[np.bool_] | None: ...
    @overload
    def __getitem__(self, image: slice) -> list[NDArray[np.bool_] | None]: ...
    def __getitem__(self, image: int | slice) -> Any:
        """The bool array of an image, made anew."""
        if isinstance(image, slice):
            return [self[i] for i in range(*image.indices(len(self)))]
        packed = self._bits[image]
        return None if packed is None else np.unpackbits(packed[0], count=packed[1]).view(bool)

    def pick(self, images: Sequence[int]) -> Seen:
        """Those of some of the images."""
        found = Seen([])
        found._bits = [self._bits[i] for i in images]
        return found

    @classmethod
    def join(cls, parts: Iterable[Seen]) -> Seen:
        """Those of all parts, one after the other."""
        found = cls([])
        found._bits = [packed for part in parts for packed in part._bits]
        return found


@dataclass(frozen=True, eq=False)
class Defect:
    """One defect of an image as sPRO counts it: all is well once `saturation` of its pixels are found."""

    spots: Spots  # flat indices of its pixels, rising
    saturation: int  # pixels, at least 1


@dataclass(frozen=True, eq=False)
class PixelTruth:
    """The defects of N images as flat indices, 2 % of what the masks hold.

    Making one costs more than the rest of an evaluation: keep it where several methods are scored on the same
    data set and size. Regions are 8-connected, and found when AUPRO first asks for them.
    """

    shapes: tuple[tuple[int, int] | None, ...]  # (H, W); None where no mask was given: no defect, any shape
    spots: tuple[Spots, ...]  # defect pixels, rising; those left out are not among them
    seen: Seen  # of each image (H * W,) bool, the pixels that count; None: all
    known: tuple[bool, ...]  # whether a mask was given
    defects: tuple[tuple[Defect, ...], ...] | None = None  # for sPRO; None: not known
    _region: tuple[NDArray[np.int64] | None, ...] = field(default=(), repr=False)  # of images with `ignore`

    @classmethod
    def of(
        cls,
        masks: Sequence[ArrayLike | None],
        ignore: Sequence[ArrayLike | None] | None = None,
        defects: Sequence[Sequence[tuple[ArrayLike, int]] | None] | None = None,
    ) -> PixelTruth:
        """The truth that N masks (H, W) hold: nonzero where defective, None where there is no defect.

        ignore: N bool arrays (or None), True for pixels that are left out of everything. A region is one of
        the whole mask; its area is what `ignore` leaves of it.
        defects: for sPRO, of each image the defects as (mask, saturation area in pixels), which may overlap;
        every defect pixel of `masks` is in one of them. None for images without.
        Raises ValueError for masks with grey levels, and where shapes or numbers differ.
        """
        for name, others in (("ignore masks", ignore), ("lists of defects", defects)):
            if others is not None and len(others) != len(masks):
                raise ValueError(f"{len(masks)} masks but {len(others)} {name}; wanted one for each image")
        shapes: list[tuple[int, int] | None] = []
        spots: list[Spots] = []
        seen: list[NDArray[np.bool_] | None] = []
        region: list[NDArray[np.int64] | None] = []
        saturating: list[tuple[Defect, ...]] = []
        for image, mask in enumerate(masks):
            hidden = None if ignore is None else ignore[image]
            given = None if mask is None else np.asarray(mask)
            shape = None if given is None else _shape(given, image)
            defect = None if given is None else as_mask(given, image, given.shape)
            found = np.empty(0, np.int32) if defect is None else _spots(defect)
            number = None
            counted = None
            if hidden is not None:
                if shape is None:
                    shape = _shape(np.asarray(hidden), image)
                counted = _seen(hidden, image, shape)
                if len(found) and not (inside := counted[found]).all():
                    number = number_regions([found], [shape])[inside]
                    found = found[inside]
            shapes.append(shape)
            spots.append(found)
            seen.append(counted)
            region.append(number)
            if defects is not None:
                saturating.append(_defects(defects[image], image, shape, found, counted))
        return cls(
            tuple(shapes),
            tuple(spots),
            Seen(seen),
            tuple(mask is not None for mask in masks),
            None if defects is None else tuple(saturating),
            tuple(region),
        )

    @classmethod
    def join(cls, parts: Sequence[PixelTruth]) -> PixelTruth:
        """The truth of all images of the parts, so that masks can be read, and forgotten, one by one."""
        return cls(
            tuple(shape for part in parts for shape in part.shapes),
            tuple(found for part in parts for found in part.spots),
            Seen.join(part.seen for part in parts),
            tuple(known for part in parts for known in part.known),
            None
            if not parts or any(part.defects is None for part in parts)
            else tuple(own for part in parts for own in part.defects or ()),
            tuple(number for part in parts for number in (part._region or [None] * len(part))),
        )

    def __len__(self) -> int:
        return len(self.spots)

    @cached_property
    def positives(self) -> int:
        """Defect pixels of all images."""
        return sum(map(len, self.spots))

    @cached_property
    def gain(self) -> NDArray[np.float64]:
        """(positives,) for each defect pixel, image after image, 1 / area of its 8-connected region."""
        numbers = number_regions(self.spots, self.shapes)
        if any(own is not None for own in self._region):
            # What is left out may cut a region in two: it stays one, numbered as in the whole mask.
            top, start = int(numbers.max(initial=-1)) + 1, 0
            for own, found in zip(self._region, self.spots, strict=True):
                if own is not None:
                    numbers[start : start + len(found)] = own + top
                    top += int(own.max(initial=-1)) + 1
                start += len(found)
        return 1.0 / np.bincount(numbers)[numbers] if len(numbers) else np.empty(0)

    def check_shape(self, image: int, shape: tuple[int, ...], first: int = 0) -> None:
        """Raise ValueError where a map has another shape than its mask; images are numbered from `first`."""
        own = self.shapes[image]
        if own is not None and shape != own:
            raise ValueError(
                f"the map of image {first + image} has shape {shape}, its mask {own}; resize one first"
            )

    def per_image(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """(positives,) values as one part for each image."""
        return np.split(values, np.cumsum([len(found) for found in self.spots])[:-1])

    def subset(self, images: Sequence[int]) -> PixelTruth:
        """The truth of some of the images, in the order given."""
        pick: Any = lambda values: tuple(values[i] for i in images)  # noqa: E731
        return PixelTruth(
            pick(self.shapes),
            pick(self.spots),
            self.seen.pick(images),
            pick(self.known),
            None if self.defects is None else pick(self.defects),
            pick(self._region) if self._region else (),
        )


def number_regions(spots: Sequence[Spots], shapes: Sequence[tuple[int, int] | None]) -> NDArray[np.int64]:
    """For each defect pixel of all images the number of its 8-connected region, from 0; none spans images.

    All images at once: pixels of a row that touch form a run, runs of neighbouring rows that touch an edge of
    a graph, and its components are the regions. A region's cost is that of its runs, not of the image.
    """
    from scipy.sparse import coo_array  # here, so that image metrics and the catalogue do without SciPy
    from scipy.sparse.csgraph import connected_components

    some = [(found, shape) for found, shape in zip(spots, shapes, strict=True) if len(found) and shape]
    if not some:
        return np.empty(0, np.int64)
    base, places, columns, widths = 0, [], [], []
    for found, (rows, length) in some:
        places.append(found + np.int64(base))
        columns.append(found % length)
        widths.append(np.full(len(found), length))
        base += (rows + 1) * length + 2  # an empty row between images, so that no region spans two
    place, column, width = map(np.concatenate, (places, columns, widths))
    first = np.flatnonzero(np.concatenate(([True], (np.diff(place) != 1) | (column[1:] == 0))))
    last = np.append(first[1:], len(place)) - 1
    start, end, below = place[first], place[last], width[first]
    # What a run touches in the row below, corners included; a run at the margin has no corner there.
    left = start + below - (column[first] > 0)
    right = end + below + (column[last] < below - 1)
    low, high = np.searchsorted(end, left), np.searchsorted(start, right, side="right")
    touching = np.maximum(high - low, 0)
    one = np.repeat(np.arange(len(first)), touching)
    other = np.arange(len(one)) + np.repeat(low - (np.cumsum(touching) - touching), touching)
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(first), len(first)))
    _, number = connected_components(graph, directed=False)
    return np.repeat(number.astype(np.int64), last - first + 1)


def as_mask(mask: ArrayLike | None, image: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask as bool of the given shape: None has no defect, 0 with 1 or 255 is read, grey is refused."""
    if mask is None:
        return np.zeros(shape, bool)
    values = np.asarray(mask)
    if values.shape != shape:
        raise ValueError(
            f"the map of image {image} has shape {shape}, its mask {values.shape}; resize one first"
        )
    if values.dtype == bool:
        return values
    defect = values != 0
    if defect.any():
        top = values.max()
        if top not in (1, 255) or (values[defect] != top).any():
            levels = np.unique(values)
            raise ValueError(
                f"the mask of image {image} holds the {len(levels)} values {levels[0]} to {levels[-1]}; "
                "a mask is bool, 0 with 1, or 0 with 255: choose a threshold first"
            )
    return defect


def _spots(defect: NDArray[np.bool_]) -> Spots:
    return np.flatnonzero(defect).astype(np.int32)


def _shape(values: NDArray[Any], image: int) -> tuple[int, int]:
    if values.ndim != 2:
        raise ValueError(f"a mask is (H, W); that of image {image} has shape {values.shape}")
    return int(values.shape[0]), int(values.shape[1])


def _seen(hidden: ArrayLike, image: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    left_out = np.asarray(hidden)
    if left_out.shape != shape or left_out.dtype != bool:
        raise ValueError(
            f"ignore of image {image} must be bool of the map's shape {shape}; "
            f"got {left_out.dtype} of {left_out.shape}"
        )
    return ~left_out.ravel()


def _defects(
    given: Sequence[tuple[ArrayLike, int]] | None,
    image: int,
    shape: tuple[int, int] | None,
    found: Spots,
    seen: NDArray[np.bool_] | None,
) -> tuple[Defect, ...]:
    """The defects of one image, checked against its mask."""
    made = []
    for mask, saturation in given or ():
        if shape is None:
            raise ValueError(f"image {image} has defects but no mask; give it the union of its defects")
        spots = _spots(as_mask(mask, image, shape))
        if seen is not None:
            spots = spots[seen[spots]]
        if saturation != int(saturation) or saturation < 1:
            raise ValueError(
                f"the saturation of a defect of image {image} is a whole number of pixels, at least 1; "
                f"got {saturation}"
            )
        # No defect is saturated later than by all of its pixels.
        made.append(Defect(spots, min(int(saturation), max(len(spots), 1))))
    union = np.unique(np.concatenate([defect.spots for defect in made])) if made else np.empty(0, np.int32)
    if not np.array_equal(union, found):
        raise ValueError(
            f"the mask of image {image} has {len(found)} defect pixels, its {len(made)} defects together "
            f"{len(union)}, or at other places; the mask must be the union of the defects"
        )
    return tuple(made)
