"""Folders of ground truth: every layout, what belongs together, every fault by name, and the values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ad_bench import records
from ad_bench.errors import DataError, ResultsError, UsageError
from ad_bench.external import find_maps
from ad_bench.geometry import resize_map
from ad_bench.groundtruth import match, read_truth
from ad_bench.metrics import evaluate
from ad_bench.runner.external import Row, evaluate_with_truth
from ad_bench.samples import ANOMALOUS, NORMAL

SHAPE = (6, 8)


def put(path: Path, array: np.ndarray) -> Path:
    """A map or a mask, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix in (".tiff", ".tif"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def mask(*rows: int, value: int = 255, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Defective in whole rows."""
    array = np.zeros(shape, np.uint8)
    array[list(rows)] = value
    return array


def some_map(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def matched(truth: Path, maps: Path, **options: object) -> dict:
    return {m.category: m for m in match(truth, maps, find_maps(maps), **options)}  # type: ignore[arg-type]


def tiny(
    tmp_path: Path,
    truth: str = "truth/bottle/ground_truth",
    maps: str = "maps/bottle/test",
    ending: str = "_mask.png",
    suffix: str = ".tiff",
) -> tuple[Path, Path]:
    """Two cracks, one hole and two good images; the folder of masks and that of maps."""
    for number, (defect, stem) in enumerate([("crack", "000"), ("crack", "001.v2"), ("hole", "000")]):
        put(tmp_path / truth / defect / f"{stem}{ending}", mask(number))
        put(tmp_path / maps / defect / f"{stem}{suffix}", some_map(number))
    for number, stem in enumerate(["000", "001"]):
        put(tmp_path / maps / "good" / f"{stem}{suffix}", some_map(9 + number))
    return tmp_path / truth, tmp_path / maps


# --- which map belongs to which mask


@pytest.mark.parametrize("suffix", [".tiff", ".tif", ".npy", ".npz", ".TIFF"])
@pytest.mark.parametrize("ending", ["_mask.png", ".png", ".bmp"])
@pytest.mark.parametrize(
    ("truth", "maps"),
    [
        ("truth/bottle/ground_truth", "maps/bottle/test"),
        ("truth/bottle", "maps/bottle"),
        ("truth/ground_truth", "maps/test"),
        ("truth", "maps"),
    ],
)
def test_mvtec_layout(tmp_path: Path, truth: str, maps: str, ending: str, suffix: str) -> None:
    if suffix == ".TIFF":
        tiny(tmp_path, truth, maps, ending, ".tiff")
        for path in (tmp_path / "maps").rglob("*.tiff"):
            path.rename(path.with_suffix(".TIFF"))
    else:
        tiny(tmp_path, truth, maps, ending, suffix)
    ((category, found),) = matched(tmp_path / "truth", tmp_path / "maps").items()
    assert (category, found.layout) == ("bottle" if "bottle" in truth else "truth", "mvtec")
    told = read_truth(found)
    by_name = {
        s.name.removeprefix(f"{category}/").removesuffix(suffix): (s.label, s.defect, m)
        for s, m in zip(told.samples, told.masks, strict=True)
    }
    assert by_name.keys() == {"crack/000", "crack/001.v2", "hole/000", "good/000", "good/001"}
    for row, name in enumerate(["crack/000", "crack/001.v2", "hole/000"]):
        label, defect, truly = by_name[name]
        assert (label, defect) == (ANOMALOUS, name.split("/")[0])
        np.testing.assert_array_equal(truly, mask(row) > 0)
    assert by_name["good/000"] == (NORMAL, "good", None)
    assert told.defects is None
    (crack,) = (
        read() for name, read in find_maps(tmp_path / "maps").items() if name.endswith(f"crack/000{suffix}")
    )
    np.testing.assert_array_equal(crack, some_map(0))


@pytest.mark.parametrize("truth", ["truth/bottle/ground_truth", "truth/bottle", "truth"])
@pytest.mark.parametrize("maps", ["maps/bottle/test", "maps/bottle", "maps"])
def test_one_category_or_all_on_either_side(tmp_path: Path, truth: str, maps: str) -> None:
    tiny(tmp_path)
    found = matched(tmp_path / truth, tmp_path / maps)
    assert list(found) == ["bottle"]
    assert len(found["bottle"].samples) == 5


def test_a_data_sets_own_folder_and_several_categories(tmp_path: Path) -> None:
    for category in ("bottle", "cable"):
        tiny(tmp_path, f"data/{category}/ground_truth", f"maps/{category}/test")
        put(tmp_path / f"data/{category}/test/crack/000.png", some_image())
        put(tmp_path / f"data/{category}/train/good/000.png", some_image())
    (tmp_path / "data/readme.txt").write_text("CC BY-NC-SA")
    assert list(matched(tmp_path / "data", tmp_path / "maps")) == ["bottle", "cable"]
    assert list(matched(tmp_path / "data", tmp_path / "maps", categories=["cable"])) == ["cable"]
    assert list(matched(tmp_path / "data", tmp_path / "maps/cable")) == ["cable"]
    with pytest.raises(UsageError, match=r"no category 'cabel'. Did you mean cable"):
        matched(tmp_path / "data", tmp_path / "maps", categories=["cabel"])


def some_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)


def test_flat_layout_where_a_black_mask_is_normal(tmp_path: Path) -> None:
    put(tmp_path / "truth/a.png", mask(1, value=1))
    put(tmp_path / "truth/b.png", mask())
    for name in ("a", "b", "good/c"):
        put(tmp_path / f"maps/{name}.npy", some_map(0))
    found = matched(tmp_path / "truth", tmp_path / "maps")["truth"]
    told = read_truth(found)
    assert found.layout == "flat"
    assert [(s.name, s.label) for s in told.samples] == [
        ("truth/a.npy", ANOMALOUS),
        ("truth/b.npy", NORMAL),
        ("truth/good/c.npy", NORMAL),
    ]
    assert told.masks[0] is not None
    assert told.masks[0].sum() == SHAPE[1]
    assert told.masks[2] is None


def test_an_archive_of_maps(tmp_path: Path) -> None:
    _, maps = tiny(tmp_path, suffix=".npy")
    arrays = {
        f"bottle/test/{p.relative_to(maps).with_suffix('.png')}": np.load(p) for p in maps.rglob("*.npy")
    }
    np.savez(tmp_path / "all.npz", **arrays)
    (found,) = match(tmp_path / "truth", tmp_path / "all.npz", readers := find_maps(tmp_path / "all.npz"))
    assert len(found.samples) == 5
    for name, sample in zip(found.maps, found.samples, strict=True):
        np.testing.assert_array_equal(readers[name](), arrays[name])
        assert sample.name == name.replace("/test", "").replace(".png", ".npy")


def test_a_map_that_is_called_mask_owns_the_mask_of_that_name(tmp_path: Path) -> None:
    put(tmp_path / "truth/a_mask.png", mask(1))
    put(tmp_path / "truth/a.png", mask(2))
    for name in ("a", "a_mask"):
        put(tmp_path / f"maps/{name}.npy", some_map(0))
    told = read_truth(matched(tmp_path / "truth", tmp_path / "maps")["truth"])
    rows = {s.name: int(np.argmax(m.any(1))) for s, m in zip(told.samples, told.masks, strict=True)}  # type: ignore[union-attr]
    assert rows == {"truth/a.npy": 2, "truth/a_mask.npy": 1}


@pytest.mark.parametrize("folder", ["good", "normal", "OK"])
def test_folders_of_normal_images(tmp_path: Path, folder: str) -> None:
    truth, maps = tiny(tmp_path)
    (maps / "good").rename(maps / folder)
    put(truth / folder / "000_mask.png", mask())  # some data sets have black masks of normal images
    told = read_truth(matched(truth, maps)["bottle"])
    assert [s.label for s in told.samples].count(NORMAL) == 2
    assert sum(m is None for m in told.masks) == 1


def test_names_of_normal_folders_can_be_given(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    (maps / "good").rename(maps / "flawless")
    with pytest.raises(DataError) as error:
        matched(truth, maps)
    assert "no mask for 2 of 5 maps" in str(error.value)
    assert "flawless/000.tiff, flawless/001.tiff; looked for the first at" in str(error.value)
    assert f"{truth}/flawless/000_mask.png and {truth}/flawless/000.png" in str(error.value)
    assert "good, normal, ok; --normal NAME" in str(error.value)
    told = read_truth(matched(truth, maps, normal=["flawless"])["bottle"])
    assert [s.label for s in told.samples].count(NORMAL) == 2


# --- faults


def test_a_mask_of_a_normal_image_with_defects(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    put(truth / "good/000_mask.png", mask(2))
    with pytest.raises(DataError, match=r"good/000_mask.png has 8 defect pixels"):
        read_truth(matched(truth, maps)["bottle"])


def test_a_mask_without_a_map(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    (maps / "hole/000.tiff").unlink()
    with pytest.raises(
        DataError, match=r"no map for 1 of 3 masks, first \S+hole/000_mask.png; wanted in .* hole/000"
    ):
        matched(truth, maps)


def test_two_files_for_one_image(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    more = put(maps / "hole/000.npy", some_map(0))
    with pytest.raises(DataError, match=r"two maps for one image: \S*hole/000.npy and \S*hole/000.tiff"):
        matched(truth, maps)
    more.unlink()
    for name in ("000.png", "000_mask.bmp"):
        more = put(truth / "hole" / name, mask(0))
        with pytest.raises(DataError, match=r"two masks for the map hole/000.tiff"):
            matched(truth, maps)
        more.unlink()


def test_two_masks_of_a_map_that_is_called_mask(tmp_path: Path) -> None:
    put(tmp_path / "maps/a_mask.npy", some_map(0))
    for suffix in (".bmp", ".png"):
        put(tmp_path / f"truth/a_mask{suffix}", mask(1))
    with pytest.raises(DataError, match=r"two masks for the map a_mask.npy: \S+.bmp and \S+.png"):
        matched(tmp_path / "truth", tmp_path / "maps")


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    for path in (truth / "hole/._000_mask.png", maps / "hole/._000.tiff", maps / ".trash/000.tiff"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"of a Mac")
    assert len(matched(truth, maps)["bottle"].samples) == 5


def test_categories_that_only_one_side_has(tmp_path: Path) -> None:
    for category in ("bottle", "cable"):
        tiny(tmp_path, f"truth/{category}", f"maps/{category}")
    for path in (tmp_path / "truth/cable").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"maps have a category 'cable' .*has no masks.*category="):
        matched(tmp_path / "truth", tmp_path / "maps")
    tiny(tmp_path, "other/bottle", "other_maps/bottle")
    tiny(tmp_path, "other/cable", "lone")
    with pytest.raises(DataError, match=r"has masks of 'cable', but there are no maps of it.*category="):
        matched(tmp_path / "other", tmp_path / "other_maps")
    tiny(tmp_path, "x", "unused")
    for truth, maps, said in (
        ("x", "maps", r"maps holds the categories bottle, cable, and .* a single one, 'x'; point --maps"),
        ("other", "lone", r"other holds the categories bottle, cable, and .* 'lone'; point --ground-truth"),
    ):
        with pytest.raises(DataError, match=said):
            matched(tmp_path / truth, tmp_path / maps)


def test_folders_without_what_is_wanted(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no masks in .*empty folder"):
        matched(empty, maps)
    with pytest.raises(DataError, match="no maps in"):
        matched(truth, empty)
    with pytest.raises(DataError, match=r"no folder .*--ground-truth"):
        matched(tmp_path / "absent", maps)
    with pytest.raises(DataError, match=r"no folder .*--maps"):
        matched(truth, tmp_path / "absent")
    (tmp_path / "raw/train").mkdir(parents=True)
    with pytest.raises(DataError, match="raw holds images but no ground_truth"):
        matched(tmp_path / "raw", maps)
    put(tmp_path / "deep/a/b/c/d/000.png", mask(0))
    with pytest.raises(DataError, match=r"d/000.png lies too deep"):
        matched(tmp_path / "deep", maps)
    put(tmp_path / "mixed/a/b/000.png", mask(0))
    put(tmp_path / "mixed/b/000.png", mask(0))
    with pytest.raises(DataError, match=r"mixes layouts.*--ground-truth"):
        matched(tmp_path / "mixed", maps)
    put(tmp_path / "both/a/b/000.npy", some_map(0))
    put(tmp_path / "both/b/000.npy", some_map(0))
    with pytest.raises(DataError, match=r"mixes layouts.*--maps"):
        matched(truth, tmp_path / "both")


def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path, "truth", "maps")
    (tmp_path / "elsewhere").mkdir()
    (truth / "crack").rename(tmp_path / "elsewhere/crack")
    (truth / "crack").symlink_to(tmp_path / "elsewhere/crack")
    for folder in (truth, maps):
        (folder / "self").symlink_to("self")  # a link to itself
        (folder / "hole/up").symlink_to(folder)
    assert len(matched(truth, maps)["truth"].samples) == 5


@pytest.mark.parametrize(
    ("values", "listed"), [([0, 128], "0, 128"), ([0, 1, 255], "0, 1, 255"), (range(9), "0, 1, 2, 3, 4, ...")]
)
def test_masks_with_grey_levels_are_refused(tmp_path: Path, values: list[int], listed: str) -> None:
    truth, maps = tiny(tmp_path)
    put(truth / "hole/000_mask.png", np.resize(np.array(values, np.uint8), SHAPE))
    with pytest.raises(DataError, match=rf"hole/000_mask.png holds the grey values {listed}; wanted"):
        read_truth(matched(truth, maps)["bottle"])


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_masks_of_two_values_are_read(tmp_path: Path, top: int) -> None:
    truth, maps = tiny(tmp_path)
    array = mask(3).astype(np.uint16) // 255 * top
    put(truth / "hole/000_mask.png", array if top > 255 else array.astype(np.uint8))
    told = read_truth(matched(truth, maps)["bottle"])
    (found,) = (m for s, m in zip(told.samples, told.masks, strict=True) if s.defect == "hole")
    np.testing.assert_array_equal(found, mask(3) > 0)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\x00"])
def test_damaged_masks_are_named(tmp_path: Path, content: bytes) -> None:
    truth, maps = tiny(tmp_path)
    (truth / "hole/000_mask.png").write_bytes(content)
    with pytest.raises(DataError, match=r"hole/000_mask.png"):
        read_truth(matched(truth, maps)["bottle"])


def test_maps_of_a_wrong_kind_are_named(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    tifffile.imwrite(maps / "hole/000.tiff", np.zeros((4, *SHAPE), np.float32), photometric="minisblack")
    with pytest.raises(DataError, match=r"hole/000.tiff has shape \(4, 6, 8\)"):
        evaluate_with_truth(maps, truth)
    (maps / "hole/000.tiff").unlink()
    np.save(maps / "hole/000.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read the map .*hole/000.npy"):
        evaluate_with_truth(maps, truth)


def test_an_anomalous_image_with_an_empty_mask_is_told(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    put(truth / "hole/000_mask.png", mask())
    told = read_truth(matched(truth, maps)["bottle"])
    assert told.warnings == ["1 anomalous image(s) have an empty mask, first bottle/hole/000.tiff"]
    assert [s.label for s in told.samples].count(ANOMALOUS) == 3


# --- MVTec LOCO

CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
    {"defect_name": "extra", "pixel_value": 254, "saturation_threshold": 10, "relative_saturation": False},
    {"defect_name": "tiny", "pixel_value": 253, "saturation_threshold": 0.01, "relative_saturation": True},
]


def loco(tmp_path: Path, home: str = "truth/box") -> tuple[Path, Path]:
    """Logical 000 with two overlapping defects, structural 000 with a small one, two good images."""
    truth, maps = tmp_path / home / "ground_truth", tmp_path / "maps/box/test"
    put(truth / "logical_anomalies/000/000.png", mask(0, 1, value=255))
    put(truth / "logical_anomalies/000/001.png", mask(1, 2, value=254))
    put(truth / "structural_anomalies/000/000.png", mask(5, value=253))
    (truth.parent / "defects_config.json").write_text(json.dumps(CONFIG))
    for number, name in enumerate(
        ["logical_anomalies/000", "structural_anomalies/000", "good/000", "good/001"]
    ):
        put(maps / f"{name}.tiff", some_map(number))
    return truth, maps


def test_loco_defects_overlap_and_saturate(tmp_path: Path) -> None:
    truth, maps = loco(tmp_path)
    for root, where in ((truth.parents[1], maps.parents[1]), (truth.parent, maps), (truth, maps.parent)):
        found = matched(root, where)["box"]
        assert found.layout == "loco"
        told = read_truth(found)
        assert told.defects is not None
        by_name = {
            s.name: (s.label, s.defect, m, d)
            for s, m, d in zip(told.samples, told.masks, told.defects, strict=True)
        }
        label, defect, union, channels = by_name["box/logical_anomalies/000.tiff"]
        assert (label, defect) == (ANOMALOUS, "logical_anomalies")
        np.testing.assert_array_equal(union, mask(0, 1, 2) > 0)
        assert [(m.sum(), area) for m, area in channels] == [(16, 8), (16, 10)]
        np.testing.assert_array_equal(channels[1][0], mask(1, 2) > 0)
        # 1 % of 8 pixels would be none
        assert [area for _, area in by_name["box/structural_anomalies/000.tiff"][3]] == [1]
        assert by_name["box/good/000.tiff"] == (NORMAL, "good", None, None)


def test_a_saturation_above_the_area_is_the_area(tmp_path: Path) -> None:
    truth, maps = loco(tmp_path)
    put(truth / "logical_anomalies/000/001.png", mask(1, value=254))
    told = read_truth(matched(truth, maps)["box"])
    assert told.defects is not None
    areas = {s.defect: [area for _, area in d or ()] for s, d in zip(told.samples, told.defects, strict=True)}
    assert areas["logical_anomalies"] == [8, 8]


def test_loco_without_its_config(tmp_path: Path) -> None:
    truth, maps = loco(tmp_path)
    (truth.parent / "defects_config.json").unlink()
    with pytest.raises(DataError, match=r"no \S+box/defects_config.json: the masks lie as in MVTec LOCO"):
        read_truth(matched(truth, maps)["box"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "cannot read"),
        ("{}", "holds no list"),
        ("[]", "holds no list"),
        ("[1]", "entry 1 lacks pixel_value, saturation_threshold, relative_saturation"),
        ([{**CONFIG[0], "pixel_value": 256}], "entry 1: pixel_value is 256"),
        ([{**CONFIG[0], "pixel_value": True}], "entry 1: pixel_value is True"),
        ([{**CONFIG[0], "relative_saturation": 1}], "entry 1: relative_saturation is 1"),
        (
            [{**CONFIG[0], "saturation_threshold": 1.5}],
            "entry 1: saturation_threshold is 1.5; wanted a share",
        ),
        ([{**CONFIG[0], "saturation_threshold": 0}], "entry 1: saturation_threshold is 0; wanted a share"),
        (
            [{**CONFIG[1], "saturation_threshold": 2.5}],
            "entry 1: saturation_threshold is 2.5; wanted a whole",
        ),
        ([{**CONFIG[1], "saturation_threshold": 0}], "entry 1: saturation_threshold is 0; wanted a whole"),
        ([CONFIG[0], CONFIG[0]], "entry 2: pixel_value 255 is taken"),
        (
            [CONFIG[1]],
            r"000.png has the grey value 2\d\d, which \S+defects_config.json does not list \(it has 254\)",
        ),
    ],
)
def test_loco_configs_that_cannot_be_used(tmp_path: Path, config: object, said: str) -> None:
    truth, maps = loco(tmp_path)
    path = truth.parent / "defects_config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(DataError, match=said):
        read_truth(matched(truth, maps)["box"])


def test_loco_masks_that_cannot_be_used(tmp_path: Path) -> None:
    truth, maps = loco(tmp_path)
    channel = truth / "logical_anomalies/000/001.png"
    for array, said in (
        (mask(1, value=254) + mask(2, value=255), "001.png holds the grey values 0, 254, 255; wanted one"),
        (mask(), "001.png holds the grey values 0; wanted one"),
        (mask(1, value=254, shape=(7, 8)), r"have different sizes: \[\(6, 8\), \(7, 8\)\]"),
    ):
        put(channel, array)
        with pytest.raises(DataError, match=said):
            read_truth(matched(truth, maps)["box"])
    put(channel, mask(1, value=254))
    put(truth / "logical_anomalies/001.png", mask(1))
    put(maps / "logical_anomalies/001.tiff", some_map(0))
    with pytest.raises(DataError, match=r"logical_anomalies/001.png is a single mask among"):
        matched(truth, maps)
    (truth / "logical_anomalies/001.png").unlink()
    (truth / "logical_anomalies/001").mkdir()
    with pytest.raises(DataError, match=r"no mask for 1 of 5 maps.*logical_anomalies/001/\*.png"):
        matched(truth, maps)


def test_loco_values_by_kind_of_defect(tmp_path: Path) -> None:
    truth, maps = loco(tmp_path)
    # Exactly the saturation area of either defect of the logical image, both below all else in the other.
    found_all = np.zeros(SHAPE, np.float32)
    found_all[1] = 1
    found_all[2, :2] = 1
    put(maps / "logical_anomalies/000.tiff", found_all)
    put(maps / "structural_anomalies/000.tiff", np.ones(SHAPE, np.float32) - mask(5) / np.float32(255))
    for name in ("good/000", "good/001"):
        put(maps / f"{name}.tiff", np.full(SHAPE, 0.5, np.float32))
    found = evaluate_with_truth(maps, truth)["categories"]["box"]
    groups = found["by_defect"]
    assert list(groups) == ["logical_anomalies", "structural_anomalies", "mean"]
    assert groups["logical_anomalies"]["full"]["pixel_spro"] == 1.0
    assert groups["logical_anomalies"]["full"]["pixel_auroc"] < 1  # 16 + 16 - 8 pixels, of which 10 are found
    assert groups["structural_anomalies"]["full"]["pixel_spro"] == 0.0
    assert groups["mean"]["full"]["pixel_spro"] == 0.5
    assert groups["mean"]["image"]["image_auroc"] == 1.0
    # by hand: the structural image with the two good ones, and nothing of the logical
    pick = ["structural_anomalies/000", "good/000", "good/001"]
    by_hand = evaluate(
        [tifffile.imread(maps / f"{name}.tiff") for name in pick],
        [mask(5), None, None],
        [1.0, 0.5, 0.5],
        [1, 0, 0],
    ).values
    for name, value in by_hand.items():
        assert name.startswith("image") or groups["structural_anomalies"]["full"][name] == value
    assert found["metrics"]["full"]["pixel_spro"] not in (0.0, 0.5, 1.0)


# --- values, files and the command


def test_maps_that_are_the_real_masks_are_perfect(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    root = unpacked("mvtec_bottle/bottle_300.tar")
    for path in sorted((root / "bottle/ground_truth").glob("*/*.png")):
        name = f"{path.parent.name}/{path.stem.removesuffix('_mask')}.tiff"
        put(tmp_path / "maps/bottle/test" / name, np.asarray(Image.open(path)).astype(np.float32))
    for path in sorted((root / "bottle/test/good").glob("*.png")):
        put(tmp_path / f"maps/bottle/test/good/{path.stem}.tiff", np.zeros((300, 300), np.float32))
    found = evaluate_with_truth(
        tmp_path / "maps", root, ["metric.names=[image_auroc,pixel_auroc,pixel_aupro]"]
    )
    bottle = found["categories"]["bottle"]
    assert bottle["counts"] == {"train": None, "test_normal": 20, "test_anomalous": 63}
    assert bottle["metrics"] == {
        "image": {"image_auroc": 1.0},
        "full": {"pixel_auroc": 1.0, "pixel_aupro": pytest.approx(1.0, abs=1e-12)},
    }
    assert bottle["warnings"] == []
    assert "mean" not in found


def test_values_are_those_of_the_metrics(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    found = evaluate_with_truth(maps, truth)["categories"]["bottle"]
    arrays = [some_map(seed) for seed in (0, 1, 2, 9, 10)]
    wanted = evaluate(
        arrays, [mask(0), mask(1), mask(2), None, None], [m.max() for m in arrays], [1, 1, 1, 0, 0]
    )
    for limit in ("pixel_aupro@0.05", "pixel_aupro@0.01"):
        found["metrics"]["full"].pop(limit)
    assert found["metrics"]["image"] | found["metrics"]["full"] == wanted.values
    assert found["thresholds"] == {"image": wanted.thresholds["image"], "full": wanted.thresholds["pixel"]}
    assert found["operating_points"]["full"]["f1max"]["f1"] == wanted.values["pixel_f1max"]
    assert found["operating_points"]["full"]["f1max"]["threshold"] == wanted.thresholds["pixel"]


def test_maps_of_other_sizes(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    small = np.arange(12, dtype=np.float32).reshape(3, 4)
    put(maps / "hole/000.tiff", small)
    put(maps / "good/001.tiff", small)
    found = evaluate_with_truth(maps, truth)["categories"]["bottle"]
    resized, odd = found["warnings"]
    assert resized.startswith("1 of 5 maps are not of their mask's size")
    assert resized.endswith("first bottle/hole/000.tiff 3x4 to 6x8")
    assert odd.startswith(
        "1 normal images have maps of none of the masks' sizes (6x8), first bottle/good/001.tiff"
    )
    assert odd.endswith("they were resized to it")
    as_large = resize_map(small, SHAPE)
    put(maps / "good/001.tiff", as_large)  # counts by as many pixels as any other image
    again = evaluate_with_truth(maps, truth)["categories"]["bottle"]
    assert again["metrics"]["full"] == found["metrics"]["full"]
    assert found["metrics"]["image"]["image_auroc"] < 1  # the score is the maximum of the map as it was given
    put(maps / "hole/000.tiff", np.where(small == 0, -np.inf, small))
    with pytest.raises(DataError, match=r"hole/000.tiff is 3x4, wanted 6x8, and holds -inf"):
        evaluate_with_truth(maps, truth)
    unseen = np.full(SHAPE, -np.inf, np.float32)
    put(maps / "hole/000.tiff", unseen)  # at full size it is a map like others, below all of them
    found = evaluate_with_truth(maps, truth)["categories"]["bottle"]
    assert 0 < found["metrics"]["full"]["pixel_auroc"] < 1


def test_scores_of_a_table_by_the_images_names(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    names = [
        "test/crack/000.jpg",
        "bottle/test/crack/001.v2.png",
        "hole/000",
        "good/000.png",
        "bottle/good/001.tiff",
    ]
    for values, auroc in (([5, 4, 3, 2, 1], 1.0), ([1, 2, 3, 4, 5], 0.0), ([5, 4, 1, 3, 2], 2 / 3)):
        lines = [f"{name},{value}" for name, value in zip(names, values, strict=True)]
        (tmp_path / "scores.csv").write_text("path,score\n" + "\n".join(lines))
        found = evaluate_with_truth(maps, truth, scores=tmp_path / "scores.csv")
        image = found["categories"]["bottle"]["metrics"]["image"]
        assert image["image_auroc"] == pytest.approx(auroc, abs=1e-12)


def test_scores_reach_the_images_of_every_category(tmp_path: Path) -> None:
    lines = ["path,score"]
    for category, sign in (("bottle", 1), ("cable", -1)):
        tiny(tmp_path, f"truth/{category}", f"maps/{category}")
        for path in sorted((tmp_path / f"maps/{category}").rglob("*.tiff")):
            lines.append(f"{path.relative_to(tmp_path / 'maps')},{sign * (path.parent.name != 'good')}")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    found = evaluate_with_truth(tmp_path / "maps", tmp_path / "truth", scores=tmp_path / "scores.csv")
    categories = found["categories"]
    assert categories["bottle"]["metrics"]["image"]["image_auroc"] == 1.0
    assert categories["cable"]["metrics"]["image"]["image_auroc"] == 0.0
    assert found["mean"]["image"]["image_auroc"] == 0.5
    full = [categories[name]["metrics"]["full"]["pixel_aupr"] for name in ("bottle", "cable")]
    assert found["mean"]["full"]["pixel_aupr"] == math.fsum(full) / 2


def test_what_is_undefined_says_why(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    for path in (maps / "good").iterdir():
        path.unlink()
    found = evaluate_with_truth(maps, truth, json=tmp_path / "deep/out.json")["categories"]["bottle"]
    assert math.isnan(found["metrics"]["image"]["image_auroc"])
    assert found["undefined"]["image.image_auroc"] == "no normal image"
    stored = json.loads((tmp_path / "deep/out.json").read_text())
    assert stored["categories"]["bottle"]["metrics"]["image"]["image_auroc"] is None
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out.json"]


def test_json_that_cannot_be_written(tmp_path: Path) -> None:
    truth, maps = tiny(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write --json"):
        evaluate_with_truth(maps, truth, json=tmp_path / "file/out.json")


def test_records_under_the_given_names(tmp_path: Path) -> None:
    for category in ("bottle", "cable"):
        tiny(tmp_path, f"truth/{category}", f"maps/{category}")
    words = [f"paths.results={tmp_path / 'results'}", "category=bottle,cable"]
    for _ in range(2):  # the same content is the same record
        found = evaluate_with_truth(tmp_path / "maps", tmp_path / "truth", words, row=Row("mine", "my.set"))
    kept, problems = records.read_all(tmp_path / "results")
    assert not problems
    assert [(r["dataset"], r["category"], r["method"], r["taxonomy"]) for r in kept] == [
        ("my.set", "bottle", "mine", "external"),
        ("my.set", "cable", "mine", "external"),
    ]
    assert kept[1]["metrics"] == found["categories"]["cable"]["metrics"]
    assert kept[1]["operating_points"] == found["categories"]["cable"]["operating_points"]
    put(tmp_path / "truth/cable/hole/000_mask.png", mask(4))  # other truth, other record
    evaluate_with_truth(tmp_path / "maps", tmp_path / "truth", [words[0]], row=Row("mine", "my.set"))
    fingerprints = {r["fingerprint"]["cell"] for r in records.read_all(tmp_path / "results")[0]}
    assert len(fingerprints) == 3


@pytest.mark.parametrize("dataset", ["", "../up", "a/b", ".hidden", "a b"])
def test_ids_that_could_leave_the_results_folder_are_refused(dataset: str) -> None:
    with pytest.raises(UsageError, match="--as"):
        Row("mine", dataset)


def test_the_command_and_the_report_of_its_record(tmp_path: Path, adbench: Callable) -> None:
    for category in ("bottle", "cable"):
        tiny(tmp_path, f"truth/{category}/ground_truth", f"maps/{category}/test")
    answer = adbench(
        "evaluate", "--maps", "maps", "--ground-truth=truth", "--json", "out.json",
        "--name", "mine", "--as", "my_set",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "bottle: 2 normal and 3 anomalous images" in answer.stdout
    assert "mean of 2 categories" in answer.stdout
    mean = json.loads((tmp_path / "out.json").read_text())["mean"]["full"]
    assert f"{mean['pixel_aupro']:.4f}" in answer.stdout
    assert adbench("report").returncode == 0
    assert "mine" in (tmp_path / "results/tables/my_set/table10_pixel_auroc.csv").read_text()


def test_the_command_without_a_name_keeps_no_record(tmp_path: Path, adbench: Callable) -> None:
    loco(tmp_path)
    answer = adbench("evaluate", "--maps", "maps", "--ground-truth", "truth")
    assert answer.returncode == 0, answer.stderr
    for word in ("pixel_spro", "structural", "logical", "mean"):
        assert word in answer.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of --dataset NAME and --ground-truth DIR"),
        (["--dataset", "mtd", "--ground-truth", "truth"], "one of --dataset NAME and --ground-truth DIR"),
        (["--dataset", "mtd", "--json", "x"], "--json goes with --ground-truth"),
        (["--dataset", "mtd", "--normal", "x"], "--normal goes with --ground-truth"),
        (["--ground-truth", "truth", "--name", "mine"], "go together"),
        (["--ground-truth", "truth", "--as", "mine"], "go together"),
        (["--ground-truth", "truth", "--name", "patchcore", "--as", "a"], "that is a method of adbench"),
        (["--ground-truth", "truth", "--name", "mine", "--as", "../a"], "--as ../a"),
        (["--ground-truth", "truth", "--normal", ","], "--normal wants"),
        (["--ground-truth", "truth", "dataset=mtd"], "in place of a data set"),
        (["--ground-truth", "truth", "dataset.root=x"], "in place of a data set"),
        (["--ground-truth", "truth", "metric.names=[pixel_auro]"], "Did you mean pixel_auroc"),
        (["--ground-truth", "truth", "--normal", "flawless"], "no mask for 2 of 5 maps"),
        (["--ground-truth", "absent"], "no folder absent"),
    ],
)  # fmt: skip
def test_wrong_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    from ad_bench.cli import main

    tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--maps", "maps", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
