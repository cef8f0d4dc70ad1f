"""Image files to uint8 pixels: the one place that opens an image.

Rules, fixed so that an image means the same everywhere and no image is scaled by its own minimum or maximum:
  - greyscale is repeated to three channels; palettes are looked up; CMYK is converted to RGB;
  - alpha is dropped, not composited: the colours below it stay, as in the field's `.convert("RGB")`;
  - 16 bit per channel become 8 by value >> 8, so 65535 is white; 12-bit values in 16-bit files come out dark;
  - 32-bit integers pass by the same rule if all lie in 0..65535; floating point is refused;
  - the EXIF orientation is applied, to masks too; of several frames the first is read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ad_bench.errors import DataError

# 16384 x 16384. Pillow's own limit would warn from 89 million pixels on, which a line-scan camera reaches.
MAX_PIXELS = 2**28
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def decode(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file, read-only; DataError where it cannot be read as one."""
    image = _load(path)
    if image.mode in WIDE_MODES:
        values = _wide(image, path)
        grey = (values >> 8).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=2)
    else:
        pixels = np.asarray(_rgb(image, path))
    pixels.flags.writeable = False
    return pixels


def mask_values(path: Path) -> NDArray[np.integer]:
    """(H, W) grey values of a mask in the file's own range; the largest of its colour channels."""
    image = _load(path)
    if image.mode in WIDE_MODES:
        return _wide(image, path)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(_rgb(image, path)).max(axis=2)


def _load(path: Path) -> Image.Image:
    """The first frame of a file, decoded and turned as its EXIF data say."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            image.load()
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; was it moved after the data set was listed?") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not an image; remove it or rename it") from error
    except PermissionError as error:
        raise DataError(f"may not read {path}; change its permissions (chmod +r)") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image: {_start(path)}; replace the file or remove it") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} is too large: {error}; at most {MAX_PIXELS:,} pixels are read: cut it into tiles"
        ) from error
    except (
        Exception
    ) as error:  # on a damaged file Pillow raises nearly anything: OSError, SyntaxError, struct.error
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error)
        raise DataError(f"{path} is damaged: {reason}; fetch the file again or remove it") from error


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise DataError(
            f"{path} holds floating-point pixels, whose black and white are unknown; convert the data set to "
            "8 or 16 bit with one scale for all images"
        )
    image.info.pop("transparency", None)  # dropped in any case; with it Pillow warns
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise DataError(f"{path} has the colour mode {image.mode}: {error}; convert it to RGB") from error


def _wide(image: Image.Image, path: Path) -> NDArray[np.integer]:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise DataError(
            f"{path} holds 32-bit values from {values.min()} to {values.max()}, whose white is unknown; "
            "convert the data set to 8 or 16 bit with one scale for all images"
        )
    return values


def _start(path: Path) -> str:
    """What a file that is no image begins with."""
    with path.open("rb") as file:
        head = file.read(16)
    return f"it begins with {head!r}" if head else "it is empty (0 bytes)"


def shape_text(size: tuple[int, ...]) -> str:
    """`480x640 (height x width)`, for a message."""
    return f"{size[0]}x{size[1]} (height x width)"
