"""MVTec LOCO AD: a file for each defect, saturation areas, and sPRO in a run."""

import json
import shutil

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_defects, read_mask
from ad_bench.datasets.mvtec_loco import samples
from ad_bench.errors import CategoryMissing, DataError
from ad_bench.records import read_all
from tests.datasets.trees import BOX, described, mvtec_loco


@pytest.fixture
def tree(tmp_path):
    mvtec_loco.make(tmp_path / "mvtec_loco")
    return tmp_path / "mvtec_loco"


def test_every_image(tree):
    listed = list(samples(tree, "juice_bottle"))
    assert [s.name for s in listed] == [
        *(f"juice_bottle/train/good/00{i}.png" for i in range(3)),
        *(f"juice_bottle/validation/good/00{i}.png" for i in range(2)),
        *(f"juice_bottle/test/good/00{i}.png" for i in range(2)),
        *(f"juice_bottle/test/logical_anomalies/00{i}.png" for i in range(2)),
        *(f"juice_bottle/test/structural_anomalies/00{i}.png" for i in range(2)),
    ]
    assert [s.split for s in listed] == ["train"] * 3 + ["validation"] * 2 + ["test"] * 6
    assert [s.defect for s in listed[7:]] == ["logical_anomalies"] * 2 + ["structural_anomalies"] * 2
    assert [s.label for s in listed] == [0] * 7 + [1] * 4


def test_masks_are_joined(tree):
    for sample in samples(tree, "breakfast_box"):
        assert (sample.mask is None) == (sample.label == 0)
        mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
        assert mask.sum() == (240 if sample.label else 0)
        assert mask[BOX].all() == bool(sample.label)


def test_each_defect_has_its_saturation_area(tree):
    areas = {}
    for sample in samples(tree, "breakfast_box"):
        defects = read_defects(sample.mask, decode(sample.image).shape[:2], sample.name)
        if sample.label:
            assert [int(pixels.sum()) for pixels, _ in defects] == [240] * len(defects)
            areas[f"{sample.defect[0]}{sample.image.stem}"] = [area for _, area in defects]
        else:
            assert defects is None
    # 255: 100 pixels; 254: all of the 240; 253: half of them
    assert areas == {"l000": [100], "l001": [100, 120], "s000": [240], "s001": [240, 240]}


def test_a_run_has_spro(tree, adbench, tmp_path):
    answer = adbench(
        *("run", "method=mean_image", "dataset=mvtec_loco", "category=juice_bottle", f"dataset.root={tree}"),
        *("dataset.input={size: [64, 64]}", "runtime.device=cpu", "runtime.latency_repeats=1"),
        *("metric.intervals.replicates=0", "metric.by_defect=true", "store=false"),
    )
    assert answer.returncode == 0, answer.stderr
    (record,), problems = read_all(tmp_path / "results")
    assert problems == []
    assert record["counts"]["test_anomalous"] == 4
    assert 0.5 < record["metrics"]["full"]["pixel_spro"] <= 1  # the planted square is easy to see
    assert "pixel_spro" not in record["metrics"]["paper"]  # its areas are of the original masks
    assert set(record["by_defect"]) == {"logical_anomalies", "structural_anomalies"}


def test_the_yaml_states_the_counts_of_the_archive(tree):
    made = described("mvtec_loco", tree)
    assert made.available() == ["breakfast_box", "juice_bottle"]
    report = made.check("juice_bottle", deep=True)
    assert [text.split("; ")[1] for text in report.problems] == ["found 3", "found 2", "found 2", "found 4"]
    assert list(made.counts) == list(made.categories)
    totals = {key: sum(counts[key] for counts in made.counts.values()) for key in report.expected}
    assert totals == {"train": 1778, "validation": 305, "test_normal": 575, "test_anomalous": 993}


@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_folder_of_masks(tree, empty):
    home = tree / "juice_bottle/ground_truth/logical_anomalies/001"
    shutil.rmtree(home)
    if empty:
        home.mkdir()
    with pytest.raises(
        DataError, match=r"logical_anomalies/001\.png; looked for .*logical_anomalies/001/000\."
    ):
        list(samples(tree, "juice_bottle"))


def test_masks_in_the_layout_of_mvtec_ad(tree):
    shutil.rmtree(tree / "juice_bottle/ground_truth")
    folder = tree / "juice_bottle/ground_truth/logical_anomalies"
    folder.mkdir(parents=True)
    (folder / "000_mask.png").touch()
    with pytest.raises(DataError, match=r"and 3 more images; looked for .*logical_anomalies/000/000\.png"):
        list(samples(tree, "juice_bottle"))


def test_saturations_are_needed(tree):
    path = tree / "juice_bottle/defects_config.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps(entries[:1]))
    sample = list(samples(tree, "juice_bottle"))[-1]
    with pytest.raises(DataError, match=r"grey value 254, which .*defects_config\.json does not list"):
        read_defects(sample.mask, decode(sample.image).shape[:2], sample.name)
    path.unlink()
    with pytest.raises(DataError, match=r"no .*juice_bottle/defects_config\.json .*unpack the archive again"):
        list(samples(tree, "juice_bottle"))


def test_absent_category(tree):
    with pytest.raises(CategoryMissing, match=r"no category 'pushpin' at .*2 entries: breakfast_box/"):
        list(samples(tree, "pushpin"))
