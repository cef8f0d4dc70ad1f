"""Maps and scores of other programs: every layout that is read, and every fault that is named."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from ad_bench.errors import DataError
from ad_bench.external import find_maps, read_maps, read_scores
from ad_bench.samples import Sample

NAMES = ["bottle/test/crack/000.png", "bottle/test/good/000.png", "bottle/test/good/001.v2.png"]


def sample(name, category="bottle", defect=None):
    return Sample(Path("/nowhere") / name, name, category, "test", 0, defect or name.split("/")[-2])


@pytest.fixture
def samples():
    return [sample(name) for name in NAMES]


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(4 + k, 5)).astype(np.float32) for k in range(len(NAMES))]


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    else:
        tifffile.imwrite(path, array)


def stems(names=NAMES):
    return [name.removesuffix(".png") for name in names]


def assert_same(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tiff", ".tif"])
@pytest.mark.parametrize("leading", ["", "bottle/"])
def test_one_file_for_each_image(tmp_path, samples, maps, suffix, leading):
    for stem, array in zip(stems(), maps, strict=True):
        write(tmp_path / f"{stem.removeprefix(leading)}{suffix}", array)
    assert_same(read_maps(tmp_path, samples), maps)


def test_the_layout_of_mvtecs_evaluation_code_fits_other_data_sets(tmp_path, maps):
    write(tmp_path / "mtd/test/blowhole/exp1_num_7.tiff", maps[0])
    write(tmp_path / "mtd/test/good/exp1_num_8.tiff", maps[1])
    tiles = [
        sample("MT_Blowhole/Imgs/exp1_num_7.jpg", "mtd", "blowhole"),
        sample("MT_Free/Imgs/exp1_num_8.jpg", "mtd", "good"),
    ]
    assert_same(read_maps(tmp_path, tiles), maps[:2])


@pytest.mark.parametrize("names", [NAMES, stems(), [n.removeprefix("bottle/") for n in NAMES]])
@pytest.mark.parametrize("direct", [False, True])
def test_one_archive_for_all(tmp_path, samples, maps, names, direct):
    np.savez_compressed(tmp_path / "maps.npz", **dict(zip(names, maps, strict=True)))
    assert_same(read_maps(tmp_path / "maps.npz" if direct else tmp_path, samples), maps)


def test_maps_come_in_the_order_of_the_samples(tmp_path, samples, maps):
    for stem, array in zip(stems(), maps, strict=True):
        write(tmp_path / f"{stem}.npy", array)
    assert_same(read_maps(tmp_path, samples[::-1]), maps[::-1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("suffix", [".npy", ".tiff"])
def test_the_floating_type_is_kept(tmp_path, samples, dtype, suffix):
    array = np.linspace(0, 1, 12).reshape(3, 4).astype(dtype)
    write(tmp_path / f"{stems()[0]}{suffix}", array)
    assert_same(read_maps(tmp_path, samples[:1]), [array])


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 1)])
def test_a_lone_channel_is_dropped(tmp_path, samples, shape):
    array = np.arange(12, dtype=np.uint8).reshape(shape)
    write(tmp_path / f"{stems()[0]}.npy", array)
    assert_same(read_maps(tmp_path, samples[:1]), [array.reshape(3, 4).astype(np.float32)])


def test_minus_infinity_is_a_pixel_never_seen(tmp_path, samples):
    array = np.array([[1.0, -np.inf]])
    write(tmp_path / f"{stems()[0]}.npy", array)
    assert_same(read_maps(tmp_path, samples[:1]), [array])


def test_missing_maps_are_counted_and_named(tmp_path, maps):
    many = [sample(f"bottle/test/good/{k:03d}.png") for k in range(6)]
    write(tmp_path / "bottle/test/good/002.npy", maps[0])
    with pytest.raises(
        DataError, match=r"no map for 5 of 6 images: \S+/000.png, \S+/001.png, \S+/003.png, \.\.\.;"
    ):
        read_maps(tmp_path, many)
    np.savez(tmp_path / "maps.npz", **{many[0].name: maps[0]})
    with pytest.raises(DataError, match=r"maps.npz has no map for 5 of 6 images"):
        read_maps(tmp_path, many)
    with pytest.raises(DataError, match="no folder"):
        read_maps(tmp_path / "absent", many)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((3, 4, 2)), r"has shape \(3, 4, 2\)"),
        (np.zeros(4), r"has shape \(4,\)"),
        (np.zeros((0, 4)), r"has shape \(0, 4\)"),
        (np.zeros((1, 3, 4, 1)), r"has shape \(1, 3, 4, 1\)"),
        (np.array([[1.0, np.nan, np.inf, np.nan]]), r"holds 2 NaN and 1 \+inf among 4 values"),
        (np.array([[1j]]), "holds complex128"),
        (np.array([["a"]]), "holds <U1"),
    ],
)
def test_maps_that_cannot_be_scored(tmp_path, samples, array, text):
    path = tmp_path / f"{stems()[0]}.npy"
    write(path, array)
    with pytest.raises(DataError, match=rf"000\.npy {text}"):
        read_maps(tmp_path, samples[:1])
    path.unlink()
    np.savez(tmp_path / "maps.npz", **{NAMES[0]: array})
    with pytest.raises(DataError, match=rf"maps\.npz, key {NAMES[0]} {text}"):
        read_maps(tmp_path, samples[:1])


def test_what_lies_in_a_folder_or_an_archive(tmp_path, maps):
    for name, array in zip(("b/0.npy", "a/0.TIFF", "a/1.npz"), maps, strict=True):
        path = tmp_path / name
        write(path.with_suffix(path.suffix.lower()), array)
        path.with_suffix(path.suffix.lower()).rename(path)
    (tmp_path / "a/0.png").write_bytes(b"a picture of the map")
    found = find_maps(tmp_path)
    assert list(found) == ["a/0.TIFF", "a/1.npz", "b/0.npy"]
    assert_same([read() for read in found.values()], [maps[1], maps[2], maps[0]])
    np.savez(tmp_path / "maps.npz", **{"b/0.png": maps[0], "a\\0": maps[1]})
    found = find_maps(tmp_path)
    assert list(found) == ["a/0", "b/0.png"]
    assert_same([read() for read in found.values()], [maps[1], maps[0]])


def test_archives_that_cannot_be_used(tmp_path, samples, maps):
    single = tmp_path / "all.npy"
    np.save(single, np.stack([np.zeros((2, 2))] * 3))
    for read in (lambda: find_maps(single), lambda: read_maps(single, samples)):
        with pytest.raises(DataError, match=r"all.npy holds a single array; wanted an .npz"):
            read()
    np.savez(tmp_path / "maps.npz", **{"a/0": maps[0], "a\\0": maps[1]})
    with pytest.raises(DataError, match="several keys for one image"):
        find_maps(tmp_path)
    np.savez_compressed(tmp_path / "maps.npz", **dict(zip(NAMES, [np.zeros((90, 90))] * 3, strict=True)))
    content = bytearray((tmp_path / "maps.npz").read_bytes())
    content[60:120] = b"\xff" * 60  # in the compressed bytes of the first map
    (tmp_path / "maps.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot read the maps in"):
        read_maps(tmp_path, samples)


def test_pickles_are_refused(tmp_path, samples):
    path = tmp_path / f"{stems()[0]}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read the map .*000\.npy"):
        read_maps(tmp_path, samples[:1])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tiff"])
@pytest.mark.parametrize("content", [b"", b"these are words", b"\x93NUMPY", b"PK\x03\x04 cut", b"II*\x00"])
def test_broken_files_are_named(tmp_path, samples, suffix, content):
    path = tmp_path / f"{stems()[0]}{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"000\{suffix}"):
        read_maps(tmp_path, samples[:1])


def test_a_truncated_map_is_named(tmp_path, samples, maps):
    for suffix in (".npy", ".npz", ".tiff"):
        path = tmp_path / f"{stems()[0]}{suffix}"
        write(path, np.zeros((50, 50), np.float32))
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(DataError, match=rf"000\{suffix}"):
            read_maps(tmp_path, samples[:1])
        path.unlink()


def test_an_npz_of_two_arrays_is_not_one_map(tmp_path, samples, maps):
    path = tmp_path / f"{stems()[0]}.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, maps[0], maps[1])
    with pytest.raises(DataError, match="holds 2 arrays"):
        read_maps(tmp_path, samples[:1])


def test_one_map_for_two_categories_is_refused(tmp_path, maps):
    write(tmp_path / "test/good/000.npy", maps[0])
    both = [sample("bottle/test/good/000.png"), sample("cable/test/good/000.png", "cable")]
    assert_same(read_maps(tmp_path, both[:1]), maps[:1])
    with pytest.raises(
        DataError, match=r"would serve both bottle/test/good/000.png and cable/test/good/000.png"
    ):
        read_maps(tmp_path, both)


@pytest.mark.parametrize("names", [NAMES, stems(), [n.removeprefix("bottle/") for n in NAMES]])
def test_scores(tmp_path, samples, names):
    path = tmp_path / "scores.csv"
    lines = [f"{n},good,{k / 8}" for k, n in enumerate(names)]
    path.write_text("\ufeffpath,defect,score\n" + "\n".join(lines[::-1]))
    scores = read_scores(path, samples)
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.0, 0.125, 0.25]


def test_scores_with_the_slashes_of_windows(tmp_path, samples):
    path = tmp_path / "scores.csv"
    path.write_text(
        "path,score\r\n" + "\r\n".join(f".\\{n.replace('/', chr(92))},1e-3" for n in NAMES) + "\r\n"
    )
    assert read_scores(path, samples).tolist() == [1e-3] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns none; it lacks path and score"),
        ("image,score\na,1\n", "has the columns image, score; it lacks path "),
        ("path,score\n{0},1\n{0},2\n", "line 3: bottle/test/crack/000.png has a score already"),
        ("path,score\n{0},high\n", "line 2: the score is 'high'"),
        ("path,score\n{0},nan\n", "line 2: the score is 'nan'"),
        ("path,score\n{0},inf\n", "line 2: the score is 'inf'"),
        ("path,score\n{0}\n", "line 2: the score is None"),
        (
            "path,score\n{0},1\n",
            "no score for 2 of 3 images: bottle/test/good/000.png, bottle/test/good/001.v2.png;",
        ),
    ],
)
def test_scores_that_cannot_be_used(tmp_path, samples, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text.format(NAMES[0]))
    with pytest.raises(DataError, match=message):
        read_scores(path, samples)


def test_a_table_that_cannot_be_read(tmp_path, samples):
    with pytest.raises(DataError, match="cannot read the scores"):
        read_scores(tmp_path / "absent.csv", samples)
    (tmp_path / "scores.csv").write_bytes(b"path,score\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot read the scores"):
        read_scores(tmp_path / "scores.csv", samples)
