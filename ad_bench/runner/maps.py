"""The anomaly maps of a cell in one file beside its record, so that they can be scored again without a fit.

`maps.npz` holds one array a test image, by the sample's name; no pickle. All programs that read .npz read it.

What float16 loses: values keep 11 significant bits, so scores closer than one part in 2048 become ties, and
what lies more than 2^29 below the largest magnitude of the cell loses further bits. That moved no metric by
more than 1.1e-4 (PaDiM on MVTec AD bottle); scores with a large constant part, as 1000.01 and 1000.02, lose
more: keep those as float32. All maps of a cell are stored times one power of two: that is exact, keeps their
order and brings the largest magnitude to [2^14, 2^15], so that nothing overflows at 65504, however large a
method's scores. The exponent is the archive's comment; reading undoes the scale, so that thresholds stay
those of the method. A reader that does not know of it finds the same metrics. float32 loses nothing.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ad_bench.errors import ResultsError, UsageError, closest

MAPS = "maps.npz"
COMMENT = re.compile(rb"adbench exponent=(-?\d+)")  # stored value = value * 2^exponent
KINDS = ("float16", "float32")
LARGEST = 15  # the largest magnitude is stored below 2^15, half of float16's range
AGAIN = "run the cell again with save.maps=true rerun=always"


def stored_as(setting: object) -> str | None:
    """float16 or float32 as `save.maps` says, None where no maps are kept. Raises UsageError."""
    if setting is None or isinstance(setting, bool):
        return KINDS[0] if setting else None
    if setting not in KINDS:
        raise UsageError(
            f"save.maps={setting}: expected false, true (float16) or float32.{closest(str(setting), KINDS)}"
        )
    return str(setting)


def write_maps(path: Path, names: Sequence[str], maps: Sequence[NDArray[Any]], kind: str) -> None:
    """Store N finite maps of (h, w) by their samples' names; the same maps give the same bytes."""
    exponent = _exponent(maps) if kind == KINDS[0] else 0
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:  # 6: +4 % for 4x the time
        archive.comment = b"adbench exponent=%d" % exponent
        for name, values in zip(names, maps, strict=True):
            # float64 on the way: the scaled value is exact there, and rounded once
            scaled = np.ldexp(values.astype(np.float64), exponent) if exponent else values
            _put(archive, name, scaled.astype(kind))


def read_maps(path: Path, names: Sequence[str]) -> tuple[list[NDArray[np.float32]], str]:
    """The maps (h, w) float32 of the named samples, in this order, and the type that they were stored as.

    Raises ResultsError, naming the file and the sample, for a file that is missing, cut short or damaged, and
    for maps that are missing, not two-dimensional or not finite.
    """
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ResultsError(f"{path} is no archive of maps; {AGAIN}")
        with opened:
            there = set(opened.files)
            missing = [name for name in names if name not in there]
            if missing:
                raise ResultsError(
                    f"{path} has no map of {len(missing)} of {len(names)} test images,"
                    f" first {missing[0]}; {AGAIN}"
                )
            comment = COMMENT.fullmatch(opened.zip.comment if opened.zip else b"")
            exponent = (
                int(comment[1]) if comment else 0
            )  # files of adbench 0.1.0 have none: stored as they were
            stored = [opened[name] for name in names]
    except FileNotFoundError as error:
        raise ResultsError(f"{path} does not exist; {AGAIN}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ResultsError(f"{path} is damaged: {error}; {AGAIN}") from error
    maps = [
        _checked(values, exponent, f"{path}: the map of {name}")
        for name, values in zip(names, stored, strict=True)
    ]
    return maps, str(stored[0].dtype) if stored else KINDS[0]


def _exponent(maps: Sequence[NDArray[Any]]) -> int:
    largest = max((float(np.abs(values).max()) for values in maps if values.size), default=0.0)
    return LARGEST - int(np.frexp(largest)[1]) if largest else 0


def _put(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, values, allow_pickle=False)


def _checked(values: NDArray[Any], exponent: int, what: str) -> NDArray[np.float32]:
    if values.ndim != 2 or not values.size or values.dtype.kind != "f":
        raise ResultsError(f"{what} is {values.dtype} of shape {values.shape}, no (h, w) of numbers; {AGAIN}")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ResultsError(f"{what} holds {bad} values of {values.size} that are NaN or infinite; {AGAIN}")
    if not exponent:
        return values.astype(np.float32, copy=False)
    limit = np.finfo(np.float32).max  # a value beside it may have been rounded up, to what float32 has not
    return np.clip(np.ldexp(values.astype(np.float64), -exponent), -limit, limit).astype(np.float32)
