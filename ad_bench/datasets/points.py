"""The points of a 3D data set: an organised cloud, one point for each pixel of the image beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_bench.errors import DataError


def read_points(path: Path) -> NDArray[np.float32]:
    """(H, W, 3) x, y and z of every pixel, in the unit of the file; all three are 0 where a point is missing.

    MVTec 3D-AD's are TIFF files of float32. DataError, naming the file, for what is no such image.
    """
    import tifffile  # not at the top: only methods for points read them

    try:
        values = tifffile.imread(path)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; fetch the point clouds (xyz) of the data set too") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not a TIFF file of points; remove it or rename it") from error
    except PermissionError as error:
        raise DataError(f"may not read {path}; change its permissions (chmod +r)") from error
    except tifffile.TiffFileError as error:
        raise DataError(f"{path} is not a TIFF file: {error}; fetch the file again or remove it") from error
    except Exception as error:  # on a damaged file the decoders raise nearly anything
        raise DataError(
            f"{path} is damaged: {type(error).__name__}: {error}; fetch the file again"
        ) from error
    if values.ndim != 3 or values.shape[2] != 3:
        raise DataError(
            f"{path} holds an array of shape {values.shape}; wanted (H, W, 3): x, y and z of a pixel"
        )
    if values.dtype.kind != "f":
        raise DataError(f"{path} holds {values.dtype} values; wanted floating point: is it the colour image?")
    return np.ascontiguousarray(values, np.float32)
