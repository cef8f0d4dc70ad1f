"""A data set from its composed config: what is found, what is missing, and what is said then."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ad_bench.datasets.dataset import DataSet
from ad_bench.errors import CategoryMissing, DataError, UsageError
from ad_bench.samples import MaskFiles, Sample

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(name: str, root: Path | None = None, **changes):
    """The `dataset` node as Hydra hands it over: with its parents, so that ${paths.data} resolves."""
    config = OmegaConf.create(
        {"paths": {"data": "data"}, "dataset": OmegaConf.load(CONF / "dataset" / f"{name}.yaml")}
    )
    if root is not None:
        config.dataset.root = str(root)
    for key, value in changes.items():
        OmegaConf.update(config.dataset, key.replace("__", "."), value)
    return config.dataset


def picture(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8), np.uint8) if pixels is None else pixels).save(path)
    return path


@pytest.fixture
def bottles(tmp_path) -> Path:
    for index in range(3):
        picture(tmp_path / f"bottle/train/good/{index:03}.png")
        picture(tmp_path / f"bottle/test/cut/{index:03}.png")
        picture(tmp_path / f"bottle/ground_truth/cut/{index:03}_mask.png", np.eye(6, 8, dtype=np.uint8) * 255)
    picture(tmp_path / "bottle/test/good/000.png")
    return tmp_path


def test_listing_imports_nothing_heavy():
    code = (
        "import sys\n"
        "import ad_bench.geometry, ad_bench.datasets.dataset, ad_bench.datasets.mvtec\n"
        "import ad_bench.datasets.mtd, ad_bench.datasets.folder\n"
        "import ad_bench.protocols.full, ad_bench.protocols.few_shot\n"
        "import ad_bench.protocols.unified\n"
        "heavy = {'torch', 'timm', 'pandas', 'sklearn', 'scipy', 'hydra'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)\n"
    )
    path = os.pathsep.join([str(CONF.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["mvtec", "mtd", "folder"])
def test_every_yaml_makes_a_data_set(name):
    made = DataSet.from_config(composed(name))
    assert made.id == name
    assert made.root == Path("data") / name
    assert made.title
    assert made.categories
    assert set(made.textures) <= set(made.categories)
    assert set(made.counts) <= set(made.categories)
    assert {"source", "licence", "citation", "download", "annotation", "split_seed"} <= set(made.facts)


def test_tiles_are_squeezed_and_others_keep_the_methods_geometry():
    assert DataSet.from_config(composed("mtd")).input == {"size": [256, 256]}
    assert DataSet.from_config(composed("mvtec")).input is None


def test_a_folder_takes_its_own_name():
    made = DataSet.from_config(composed("folder", id="mugs"))
    assert (made.id, made.title, made.categories, made.root) == ("mugs", "mugs", ("mugs",), Path("data/mugs"))


def test_a_plain_mapping_will_do(bottles):
    node = {
        "id": "mine",
        "root": str(bottles),
        "categories": ["bottle"],
        "samples": {"_target_": "ad_bench.datasets.mvtec.samples", "_partial_": True},
    }
    assert len(DataSet.from_config(node).samples("bottle")) == 7
    with pytest.raises(UsageError, match=r"dataset\.root is not set"):
        DataSet.from_config(node | {"root": None})


def test_available_and_listed_once(bottles, monkeypatch):
    made = DataSet.from_config(composed("mvtec", bottles))
    assert made.available() == ["bottle"]
    listed = made.samples("bottle")
    monkeypatch.setattr(made, "lister", lambda *_: pytest.fail("listed again"))
    assert made.samples("bottle") is listed


def test_a_broken_category_is_available_so_that_its_error_shows(bottles):
    (bottles / "bottle/ground_truth/cut/001_mask.png").unlink()
    made = DataSet.from_config(composed("mvtec", bottles))
    assert made.available() == ["bottle"]
    with pytest.raises(DataError, match=r"no mask for the defect image .*cut/001\.png"):
        made.samples("bottle")


def test_missing_root(tmp_path):
    made = DataSet.from_config(composed("mvtec", tmp_path / "nowhere"))
    for call in (made.available, lambda: made.samples("bottle")):
        with pytest.raises(DataError) as caught:
            call()
        text = str(caught.value)
        for part in (
            "nowhere",
            "paths.data",
            "dataset.root",
            "mvtec.com",
            "adbench data check dataset=mvtec",
        ):
            assert part in text


def test_unknown_and_absent_categories(bottles):
    made = DataSet.from_config(composed("mvtec", bottles))
    with pytest.raises(UsageError, match=r"mvtec has no category 'botle'\. Did you mean bottle"):
        made.samples("botle")
    with pytest.raises(CategoryMissing, match=r"no category 'cable' at .*paths\.data"):
        made.samples("cable")


@pytest.mark.parametrize(("split", "gone"), [("train", "train/good"), ("test", "test")])
def test_empty_category(bottles, split, gone):
    for path in (bottles / "bottle" / gone).rglob("*.png"):
        path.unlink()
    made = DataSet.from_config(composed("mvtec", bottles))
    with pytest.raises(
        DataError, match=rf"empty category: 'bottle' of mvtec has no {split} images below .*bottle"
    ):
        made.samples("bottle")
    assert not made.check("bottle").ok


def test_empty_folder_of_a_category(tmp_path):
    (tmp_path / "bottle").mkdir()
    made = DataSet.from_config(composed("mvtec", tmp_path))
    with pytest.raises(DataError, match=r"no train images below .*bottle \(an empty folder\)"):
        made.samples("bottle")


@pytest.mark.parametrize(
    "closed", ["bottle/train/good", "bottle/test/cut", "bottle/ground_truth/cut", "bottle", "."]
)
def test_unreadable_folder(guarded, closed):
    picture(guarded / "bottle/train/good/000.png")
    picture(guarded / "bottle/test/cut/000.png")
    picture(guarded / "bottle/ground_truth/cut/000_mask.png")
    (guarded / closed).chmod(0)
    made = DataSet.from_config(composed("mvtec", guarded))
    with pytest.raises(DataError, match=str(guarded / closed)):
        made.samples("bottle")
    assert not made.check("bottle").ok


def test_check_compares_with_the_published_counts(bottles):
    report = DataSet.from_config(composed("mvtec", bottles)).check("bottle")
    assert report.found == {"train": 3, "test_normal": 1, "test_anomalous": 3, "masks": 3}
    assert report.expected == {"train": 209, "test_normal": 20, "test_anomalous": 63}
    assert len(report.problems) == 3
    assert "should have 209 train images (published counts); found 3" in report.problems[0]
    assert DataSet.from_config(composed("mvtec", bottles, counts=None)).check("bottle").ok


def test_shallow_check_opens_nothing_and_deep_check_everything(bottles):
    (bottles / "bottle/train/good/001.png").write_text("text")
    picture(bottles / "bottle/ground_truth/cut/000_mask.png", np.zeros((6, 8), np.uint8))
    picture(bottles / "bottle/ground_truth/cut/001_mask.png", np.zeros((8, 6), np.uint8))
    made = DataSet.from_config(composed("mvtec", bottles, counts=None))
    assert made.check("bottle").ok
    report = made.check("bottle", deep=True)
    assert [text.split(" is ")[0].rsplit("/", 1)[1] for text in report.problems] == [
        "001.png",
        "001_mask.png",
    ]
    assert report.warnings == ("1 anomalous images with an empty mask: bottle/test/cut/000.png",)


def test_check_notes_lost_masks_marked_normals_and_one_sided_tests(tmp_path):
    image, mask = picture(tmp_path / "a.png"), picture(tmp_path / "m.png", np.full((6, 8), 255, np.uint8))

    def made(*tests: Sample) -> DataSet:
        train = Sample(image, "train.png", "nut", "train", 0)
        return DataSet("nuts", tmp_path, ("nut",), lambda root, category: [train, *tests])

    lost = Sample(image, "a.png", "nut", "test", 1, "cut", MaskFiles((tmp_path / "gone.png",)))
    report = made(lost).check("nut")
    assert "gone.png for a.png" in report.problems[0]
    assert "no normal test images" in report.warnings[0]
    marked = Sample(image, "b.png", "nut", "test", 0, "good", MaskFiles((mask,)))
    report = made(marked).check("nut", deep=True)
    assert report.problems == ("b.png is normal, but its mask marks 48 pixels",)
    assert "no anomalous test images" in report.warnings[0]
    bare = Sample(image, "c.png", "nut", "test", 1, "cut")
    assert "1 test defects without a mask" in made(bare).check("nut").warnings[0]


def test_prepare_is_called_once_before_listing(tmp_path):
    calls: list[Path] = []

    def prepare(root: Path) -> None:
        calls.append(root)
        picture(root / "bottle/train/good/000.png")
        picture(root / "bottle/test/good/000.png")

    made = DataSet.from_config(composed("mvtec", tmp_path / "made"))
    made.prepare = prepare
    assert made.available() == ["bottle"]
    assert len(made.samples("bottle")) == 2
    assert calls == [tmp_path / "made"]


def test_prepare_that_cannot_write(tmp_path):
    def prepare(root: Path) -> None:
        root.mkdir()

    (tmp_path / "file").touch()
    made = DataSet.from_config(composed("mvtec", tmp_path / "file" / "made"))
    made.prepare = prepare
    with pytest.raises(DataError, match=r"cannot make mvtec at .*made: .*set paths\.data"):
        made.available()


@pytest.mark.parametrize(
    ("name", "archive", "category"),
    [("mvtec", "mvtec_bottle/bottle_300.tar", "bottle"), ("mtd", "mtd/mtd.tar", "mtd")],
)
def test_real_data_has_its_published_counts(unpacked, name, archive, category):
    made = DataSet.from_config(composed(name, unpacked(archive)))
    assert made.available() == [category]
    report = made.check(category, deep=True)
    assert report.problems == ()
    black = "4 anomalous images with an empty mask" if name == "mtd" else None
    assert [text.split(":")[0] for text in report.warnings] == ([black] if black else [])
