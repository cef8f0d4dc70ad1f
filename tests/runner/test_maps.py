from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ad_bench.errors import ResultsError, UsageError
from ad_bench.external import read_maps as read_theirs
from ad_bench.runner.maps import read_maps, stored_as, write_maps
from ad_bench.samples import Sample

NAMES = ["a/test/good/000.png", "a/test/spot/000.png"]
LARGEST = float(np.finfo(np.float32).max)


def some(scale: float = 1.0, size: int = 24) -> list[NDArray[np.float32]]:
    draws = np.random.default_rng(0)
    return [(draws.standard_normal((size, size + i)) * scale).astype(np.float32) for i in range(2)]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 7e4, 1e30])
def test_float16_keeps_eleven_bits_and_the_order_at_every_scale(tmp_path: Path, scale: float) -> None:
    maps = some(scale)
    write_maps(tmp_path / "maps.npz", NAMES, maps, "float16")
    read, kind = read_maps(tmp_path / "maps.npz", NAMES)
    assert kind == "float16"
    for before, after in zip(maps, read, strict=True):
        assert after.dtype == np.float32
        assert np.all(np.abs(after - before) <= np.abs(before) * 2.0**-11)
        ordered = after.ravel()[np.argsort(before, axis=None)]
        assert np.all(np.diff(ordered) >= 0)


def test_the_scale_itself_is_exact(tmp_path: Path) -> None:
    exact = (np.arange(-2047, 2048, dtype=np.float32) * 2.0**40).reshape(5, -1)  # 11 bits each
    write_maps(tmp_path / "maps.npz", ["x.png"], [exact], "float16")
    (read,), _ = read_maps(tmp_path / "maps.npz", ["x.png"])
    np.testing.assert_array_equal(read, exact)


@pytest.mark.parametrize("value", [0.0, -3.0, LARGEST, -LARGEST, 1e-45])
def test_odd_cells_stay_finite(tmp_path: Path, value: float) -> None:
    maps = [np.full((2, 3), value, np.float32)]
    write_maps(tmp_path / "maps.npz", ["x.png"], maps, "float16")
    (read,), _ = read_maps(tmp_path / "maps.npz", ["x.png"])
    np.testing.assert_allclose(read, maps[0], rtol=2.0**-11)


def test_float32_loses_nothing(tmp_path: Path) -> None:
    maps = [np.array([[0.1, -LARGEST], [1e-45, 70000.3]], np.float32), *some()[1:]]
    write_maps(tmp_path / "maps.npz", NAMES, maps, "float32")
    read, kind = read_maps(tmp_path / "maps.npz", NAMES[::-1])  # in the order asked for
    assert kind == "float32"
    for before, after in zip(maps, read[::-1], strict=True):
        np.testing.assert_array_equal(before, after)


def test_other_programs_and_adbench_evaluate_read_the_file(tmp_path: Path) -> None:
    maps = some(1e6)
    write_maps(tmp_path / "maps.npz", NAMES, maps, "float16")
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as plain:
        assert plain.files == NAMES
    samples = [Sample(Path(name), name, "a", "test", 0) for name in NAMES]
    ours, _ = read_maps(tmp_path / "maps.npz", NAMES)
    for mine, theirs in zip(ours, read_theirs(tmp_path / "maps.npz", samples), strict=True):
        ratios = np.unique(mine / theirs.astype(np.float32))
        assert len(ratios) == 1  # one power of two, of which no metric knows
        assert np.frexp(ratios[0])[0] == 0.5


def test_a_file_without_a_scale_is_read_as_it_is(tmp_path: Path) -> None:
    maps = some()
    named = {name: values.astype(np.float16) for name, values in zip(NAMES, maps, strict=True)}
    np.savez_compressed(tmp_path / "maps.npz", **named)  # type: ignore[arg-type]
    read, _ = read_maps(tmp_path / "maps.npz", NAMES)
    np.testing.assert_array_equal(read[0], maps[0].astype(np.float16))


def test_the_same_maps_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_maps(tmp_path / name, NAMES, some(), "float16")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def spoil_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))


def replace(values: NDArray[np.generic]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **{NAMES[0]: some()[0], NAMES[1]: values})  # type: ignore[arg-type]

    return write


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "does not exist"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "damaged"),
        (spoil_middle, "damaged"),
        (lambda p: p.write_bytes(b""), "damaged"),
        (lambda p: p.write_text("no archive"), "damaged"),
        (lambda p: write_maps(p, NAMES[:1], some()[:1], "float16"), f"1 of 2 test images, first {NAMES[1]}"),
        (replace(np.zeros((2, 3, 4), np.float16)), f"{NAMES[1]} is float16 of shape (2, 3, 4)"),
        (replace(np.zeros((0, 4), np.float16)), "(0, 4)"),
        (replace(np.array([[1, np.inf]], np.float16)), f"{NAMES[1]} holds 1 values of 2 that are NaN or inf"),
        (replace(np.array([["a"]], dtype=object)), "damaged"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "maps.npz"
    write_maps(path, NAMES, some(), "float16")
    spoil(path)
    with pytest.raises(ResultsError) as error:
        read_maps(path, NAMES)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "save.maps=true rerun=always" in str(error.value)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", some()[0])
    with pytest.raises(ResultsError, match="no archive"):
        read_maps(tmp_path / "maps.npy", NAMES)


def test_compressed(tmp_path: Path) -> None:
    smooth = [np.outer(np.linspace(0, 1, 200), np.linspace(0, 1, 200)).astype(np.float32)] * 2
    write_maps(tmp_path / "maps.npz", NAMES, smooth, "float16")
    with zipfile.ZipFile(tmp_path / "maps.npz") as archive:
        assert sum(i.compress_size for i in archive.infolist()) < 0.8 * 2 * 200 * 200 * 2


def test_what_save_maps_may_say() -> None:
    assert [stored_as(value) for value in (False, None, True, "float16", "float32")] == [
        None,
        None,
        "float16",
        "float16",
        "float32",
    ]
    with pytest.raises(UsageError, match="Did you mean float32"):
        stored_as("float23")
