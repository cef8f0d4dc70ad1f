"""MPDD and MIAD: MVTec AD's layout by another name, so that its adapter lists them."""

import importlib
import shutil

import pytest

from ad_bench.datasets.images import decode
from ad_bench.datasets.masks import read_mask
from ad_bench.errors import CategoryMissing, DataError
from tests.datasets.trees import BOX, described

KINDS = {
    "mpdd": {"bracket_black": {"hole", "scratches"}, "tubes": {"anomalous"}},
    "miad": {"electrical_insulator": {"broken"}, "metal_welding": {"crack", "hole"}},
}
both = pytest.mark.parametrize("name", ["mpdd", "miad"])


@pytest.fixture
def made(name, tmp_path):
    importlib.import_module(f"tests.datasets.trees.{name}").make(tmp_path / name)
    return described(name, tmp_path / name)


@both
def test_every_image(name, made):
    assert set(made.available()) == set(KINDS[name])
    for category, kinds in KINDS[name].items():
        listed = made.samples(category)
        assert sum(s.split == "train" for s in listed) == 3
        tests = [s for s in listed if s.split == "test"]
        assert [sum(s.defect == kind for s in tests) for kind in ("good", *kinds)] == [2] * (1 + len(kinds))
        for sample in tests:
            mask = read_mask(sample.mask, decode(sample.image).shape[:2], sample.name)
            assert mask.sum() == (240 if sample.label else 0)
            assert mask[BOX].all() == bool(sample.label)


@both
def test_damaged_copies_are_described(name, made):
    category, other = KINDS[name]
    kind = sorted(KINDS[name][category])[0]
    shutil.rmtree(made.root / category / "ground_truth" / kind)
    with pytest.raises(
        DataError, match=rf"no mask for .*{kind}/0+\.png and 1 more images; looked for .*_mask"
    ):
        made.samples(category)
    (made.root / other).rename(made.root / other.upper())
    with pytest.raises(CategoryMissing, match=f"no category '{other}' at .*{made.facts['download']}"):
        made.samples(other)


@pytest.mark.parametrize("name", ["mpdd"])
def test_the_counts_are_the_published_ones(made):
    report = made.check("tubes")
    assert len(report.problems) == 3
    assert "should have 122 train images (published counts); found 3" in report.problems[0]
    totals = {key: sum(counts[key] for counts in made.counts.values()) for key in report.expected}
    assert totals == {"train": 888, "test_normal": 176, "test_anomalous": 282}
    assert list(made.counts) == list(made.categories)
