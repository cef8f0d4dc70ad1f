"""Organised point clouds as arrays, and what is said of files that are none."""

import os

import numpy as np
import pytest
import tifffile

from ad_bench.datasets.points import read_points
from ad_bench.errors import DataError


def written(path, values, **options):
    tifffile.imwrite(path, values, photometric="rgb" if values.shape[-1] == 3 else "minisblack", **options)
    return path


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_points_come_as_they_are(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(kind)
    values[0, :2] = 0  # missing points stay zeros
    points = read_points(written(tmp_path / "000.tiff", values))
    assert (points.shape, points.dtype) == ((5, 7, 3), np.float32)
    assert np.array_equal(points, values.astype(np.float32))
    assert not points[0, :2].any()


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*000\.tiff; fetch the point clouds"):
        read_points(tmp_path / "000.tiff")
    with pytest.raises(DataError, match="is a folder, not a TIFF file"):
        read_points(tmp_path)


def test_a_closed_file(guarded):
    path = written(guarded / "000.tiff", np.zeros((4, 4, 3), np.float32))
    path.chmod(0)
    with pytest.raises(DataError, match=r"may not read .*000\.tiff; change its permissions"):
        read_points(path)


@pytest.mark.parametrize("content", [b"", b"text, no picture", b"\x89PNG\r\n\x1a\n"])
def test_no_tiff(tmp_path, content):
    path = tmp_path / "000.tiff"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"000\.tiff is not a TIFF file: .*fetch the file again"):
        read_points(path)


def test_half_a_tiff(tmp_path):
    path = written(tmp_path / "000.tiff", np.ones((40, 40, 3), np.float32))
    os.truncate(path, 2000)
    with pytest.raises(DataError, match=r"000\.tiff is (damaged|not a TIFF file)"):
        read_points(path)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 4), (2, 5, 7, 3)])
def test_another_shape(tmp_path, shape):
    path = written(tmp_path / "000.tiff", np.ones(shape, np.float32))
    with pytest.raises(DataError, match=r"000\.tiff holds an array of shape \(.*\); wanted \(H, W, 3\)"):
        read_points(path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_whole_numbers_are_no_points(tmp_path, kind):
    path = written(tmp_path / "000.tiff", np.ones((5, 7, 3), kind))
    with pytest.raises(DataError, match=f"000.tiff holds {kind.__name__} values; wanted floating point"):
        read_points(path)
