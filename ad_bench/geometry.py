"""The way of pixels: from an original image to a network's input, and of an anomaly map back to it.

Resizing means what Pillow and torchvision mean by it: pixels are areas, pixel i has its centre at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_bench.errors import UsageError, closest

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CHANNEL_ORDERS = ("rgb", "bgr")
MASK_RULES = ("nearest", ">0.5", ">0", "int")
SHAPE_KEYS = ("size", "short", "crop")


@dataclass(frozen=True)
class Geometry:
    """How an original image becomes a network's input, and how a map finds its way back.

    `size` (H, W) squeezes the image to that shape; `short` brings its short side to so many pixels and keeps
    the proportions; neither keeps the original size. `crop` then cuts a centred square. `antialias=False` is
    the bilinear interpolation of OpenCV and of torch, which looks at four pixels however much it shrinks.
    """

    size: tuple[int, int] | None = None
    short: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", _pair("input.size", self.size))
        for key in ("short", "crop"):
            if getattr(self, key) is not None:
                _positive(f"input.{key}", getattr(self, key))
        if self.size is not None and self.short is not None:
            raise UsageError(
                f"input.size={list(self.size)} and input.short={self.short} exclude each other: size "
                "squeezes to a shape, short keeps the proportions; set one of them to null"
            )
        smallest = min(self.size) if self.size else self.short
        if self.crop is not None and smallest is not None and self.crop > smallest:
            raise UsageError(
                f"input.crop={self.crop} is larger than the resized image ({smallest} pixels), and nothing "
                "is padded: make the crop smaller, or size or short larger"
            )
        _one_of("input.interpolation", self.interpolation, FILTERS)
        _one_of("input.channel_order", self.channel_order, CHANNEL_ORDERS)
        if not isinstance(self.antialias, bool):
            raise UsageError(f"input.antialias is true or false; got {self.antialias!r}")
        if not self.antialias and self.interpolation not in ("bilinear", "nearest"):
            raise UsageError(
                f"input.antialias=false is defined for bilinear only; got interpolation={self.interpolation}"
            )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None, replaced_by: Mapping[str, Any] | None = None
    ) -> Geometry:
        """The geometry of a method's `input`, with the shape of a data set's `input` where it has one.

        A shape key in `replaced_by` replaces size, short and crop together; other keys replace one by one, so
        that a data set changes the shape and a method keeps its channel order.
        """
        known = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for part in (config, replaced_by):
            part = dict(part or {})
            for key in part:
                if key not in known:
                    hint = f"Known: {', '.join(known)}."
                    raise UsageError(f"input has no key '{key}'.{closest(str(key), known, hint)}")
            if any(key in part for key in SHAPE_KEYS):
                values.update(dict.fromkeys(SHAPE_KEYS))
            values.update(part)
        return cls(**values)

    @property
    def fixed(self) -> bool:
        """Whether images of every shape come out in one shape."""
        return self.size is not None or self.crop is not None

    def output(self, original: Sequence[int]) -> tuple[int, int]:
        """(h, w) of what `forward` makes of an image of (H, W)."""
        resized = self._resized(original)
        return self._window(resized)[2] if self.crop is not None else resized

    def forward(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB -> (h, w, 3) uint8 in `channel_order`.

        Equal to torchvision's Resize and CenterCrop of a PIL image; without antialias to torch's interpolate
        of the float values, rounded half to even.
        """
        resized = self._resized(image.shape[:2])
        self._window(resized)  # refuse before the work is done
        if self.antialias or self.interpolation == "nearest":
            pixels = np.asarray(
                Image.fromarray(image).resize((resized[1], resized[0]), FILTERS[self.interpolation])
            )
        else:
            channels = [resize_map(image[..., channel], resized) for channel in range(image.shape[2])]
            pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
        pixels = self._cut(pixels)
        if self.channel_order == "bgr":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels)

    def forward_mask(
        self,
        mask: NDArray[np.bool_],
        rule: str,
        interpolation: str = "bilinear",
        size: int | Sequence[int] | None = None,
    ) -> NDArray[np.bool_]:
        """(H, W) bool -> (h, w) bool: the mask as a paper's own evaluation saw it (`paper_eval` in its YAML).

        The mask becomes 0 and 255, passes Pillow's resize and the crop like its image, is divided by 255 and
        cut by the rule: `int` keeps full pixels only, `>0` every touched one, `nearest` resizes by nearest
        whatever `interpolation` says. `size` replaces what a `size` geometry squeezes to; with a crop it can
        only repeat what the crop gives.
        """
        _one_of("paper_eval.mask_rule", rule, MASK_RULES)
        _one_of("paper_eval.mask_interpolation", interpolation, ("bilinear", "nearest"))
        target = self
        if size is not None:
            wanted, made = _pair("paper_eval.size", size), self.output(mask.shape)
            if self.size is not None and self.crop is None:
                target = replace(self, size=wanted)
            elif wanted != made:
                raise UsageError(
                    f"paper_eval.size={list(wanted)} does not fit input, which gives {list(made)}: only an "
                    "input that squeezes (size without crop) can be evaluated at another size"
                )
        height, width = target._resized(mask.shape)
        resample = FILTERS["nearest" if rule == "nearest" else interpolation]
        grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize((width, height), resample)
        values = target._cut(np.asarray(grey))
        lowest = {"int": 255, ">0.5": 128, ">0": 1, "nearest": 1}[rule]
        return values >= lowest

    def backward(
        self, anomaly_map: NDArray[Any], original: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """(h', w') float map -> ((H, W) float32 on the original's pixels, (H, W) bool of what was seen).

        A map of another size than the network's input is brought to that first. A pixel is seen if its centre
        lies in the crop; the others hold -inf. `seen` is None where all are. Without a crop equal to
        `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
        """
        resized = self._resized(original)
        top, left, (height, width) = self._window(resized)
        source = resize_map(anomaly_map, (height, width))
        rows, columns = self._seen(original)
        y = (np.arange(rows.start, rows.stop) + 0.5) * (resized[0] / original[0]) - 0.5 - top
        x = (np.arange(columns.start, columns.stop) + 0.5) * (resized[1] / original[1]) - 0.5 - left
        inside = _sample(source, y, x)
        if inside.shape == tuple(original):
            return inside, None
        whole = np.full(tuple(original), -np.inf, dtype=np.float32)
        whole[rows, columns] = inside
        return whole, self.seen(original)

    def seen(self, original: Sequence[int]) -> NDArray[np.bool_] | None:
        """(H, W) bool, the pixels of an original whose centres lie in the crop; None where all do."""
        rows, columns = self._seen(original)
        if (rows.stop - rows.start, columns.stop - columns.start) == tuple(original):
            return None
        found = np.zeros(tuple(original), dtype=bool)
        found[rows, columns] = True
        return found

    def _resized(self, original: Sequence[int]) -> tuple[int, int]:
        height, width = int(original[0]), int(original[1])
        if self.size is not None:
            return self.size
        if self.short is None:
            return height, width
        long = int(self.short * max(height, width) / min(height, width))  # cut, not rounded: torchvision
        return (self.short, long) if height <= width else (long, self.short)

    def _window(self, resized: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
        """Top, left and (height, width) of the crop in the resized image."""
        if self.crop is None:
            return 0, 0, resized
        if min(resized) < self.crop:
            raise UsageError(
                f"input.crop={self.crop} is larger than an image of {resized[0]}x{resized[1]} pixels, and "
                "nothing is padded: set input.size or input.short, or a smaller crop"
            )
        # round() takes halves to even, as in torchvision's CenterCrop
        top, left = (round((length - self.crop) / 2.0) for length in resized)
        return top, left, (self.crop, self.crop)

    def _cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        top, left, (height, width) = self._window((pixels.shape[0], pixels.shape[1]))
        return pixels[top : top + height, left : left + width]

    def _seen(self, original: Sequence[int]) -> tuple[slice, slice]:
        """The rows and columns of the original whose centres lie in the crop."""
        resized = self._resized(original)
        top, left, window = self._window(resized)
        found = []
        for before, after, start, length in zip(original, resized, (top, left), window, strict=True):
            # pixel i is seen where start <= (i + 0.5) * after / before < start + length; in whole numbers
            first = -(-(2 * before * start - after) // (2 * after))
            end = -(-(2 * before * (start + length) - after) // (2 * after))
            if end <= first:  # few pixels, blown up so far that the crop lies between their centres
                first, end = start * before // after, -(-(start + length) * before // after)
            found.append(slice(max(0, first), min(int(before), end)))
        return found[0], found[1]


def resize_map(values: NDArray[Any], size: Sequence[int]) -> NDArray[np.float32]:
    """(h, w) -> float32 of `size` (H, W), bilinear between pixel centres, edges continued.

    Equal to `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` to rounding. A constant
    map stays exactly constant and its own size changes nothing, so that ties stay ties.
    """
    height, width = int(size[0]), int(size[1])
    if values.ndim != 2 or min(values.shape) < 1:
        raise ValueError(f"a map is (h, w) with at least one pixel; got shape {values.shape}")
    if values.shape == (height, width):
        return values.astype(np.float32)
    y = (np.arange(height) + 0.5) * (values.shape[0] / height) - 0.5
    x = (np.arange(width) + 0.5) * (values.shape[1] / width) - 0.5
    return _sample(values.astype(np.float32, copy=False), y, x)


def _sample(
    values: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Bilinear values at all pairs of y and x, which are clamped to the pixel centres of the edge."""
    # Columns first: of an enlarged map that is the small array, and the rows then move as whole lines.
    return _between(_between(values, x, axis=1), y, axis=0)


def _between(values: NDArray[np.float32], at: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    last = values.shape[axis] - 1
    at = np.clip(at, 0, last)
    low = np.floor(at).astype(np.intp)
    weight = (at - low).astype(np.float32)
    below = np.take(values, low, axis=axis)
    result = np.take(values, np.minimum(low + 1, last), axis=axis)
    # a + w (b - a) and not (1 - w) a + w b: equal neighbours give exactly their value
    result -= below
    result *= weight[:, None] if axis == 0 else weight[None, :]
    result += below
    return result


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is a whole number of pixels, at least 1; got {value!r}")
    return value


def _pair(name: str, value: object) -> tuple[int, int]:
    """(H, W) of one number (a square) or of two."""
    if isinstance(value, int):
        return _positive(name, value), value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return _positive(name, value[0]), _positive(name, value[1])
    raise UsageError(f"{name} is one number or [height, width]; got {value!r}")


def _one_of(name: str, value: object, known: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in known:
        raise UsageError(
            f"{name}={value!r} is not known; take {', '.join(known)}.{closest(str(value), known)}"
        )
