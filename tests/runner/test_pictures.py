from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_bench.geometry import Geometry
from ad_bench.heat import recoloured, scale
from ad_bench.runner.pictures import TILE, choose, write_curves, write_pictures
from ad_bench.samples import Boxes, MaskFiles, Sample


def sample(folder: Path, name: str, label: int, defect: str, mask: object = None) -> Sample:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = 40 + 30 * (int(path.stem) % 7)
    Image.new("RGB", (200, 100), (shade, 90, 200 - shade)).save(path)
    return Sample(path, name, "mug", "test", label, defect, mask)  # type: ignore[arg-type]


@pytest.fixture
def tests(tmp_path: Path) -> list[Sample]:
    """Nine kinds of defects, three images each, and ten normal ones; a defect is 1 pixel of 20,000."""
    mask = np.zeros((100, 200), np.uint8)
    mask[52, 102] = 255  # between the rows and columns that a thinned mask would keep
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = [sample(tmp_path, f"good/{i:03}.png", 0, "good") for i in range(10)]
    for kind in "abcdefghi":
        found += [
            sample(tmp_path, f"{kind}/{i:03}.png", 1, kind, MaskFiles((tmp_path / "mask.png",)))
            for i in range(3)
        ]
    return found


def maps_of(tests: list[Sample]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [rng.random((32, 32)).astype(np.float32) for _ in tests]
    for index, one in enumerate(tests):
        if one.label:
            found[index][16, 16] = 100.0 + index
    return found


def scores_of(tests: list[Sample]) -> np.ndarray:
    return np.array([10.0 * one.label + index for index, one in enumerate(tests)])


WHOLE = Geometry.from_config({"size": [32, 32]})


def test_the_gallery_depends_on_the_test_set_alone(tests: list[Sample]) -> None:
    scores = scores_of(tests)
    shown = {tests[i].name for i, why in choose(tests, scores).items() if "gallery" in why}
    assert shown == {
        tests[len(tests) - 1 - i].name for i, why in choose(tests[::-1], -scores).items() if "gallery" in why
    }
    kinds = [name.partition("/")[0] for name in sorted(shown)]
    assert kinds.count("good") == 2
    assert len(set(kinds) - {"good"}) == 6
    assert {name.partition("/")[2] for name in shown if not name.startswith("good")} == {"001.png"}


def test_worst_are_high_normal_and_low_defective_scores(tests: list[Sample]) -> None:
    shown = choose(tests, scores_of(tests))
    worst = [tests[i].name for i, why in shown.items() if "worst" in why]
    best = [tests[i].name for i, why in shown.items() if "best" in why]
    assert sorted(worst) == [*(f"a/00{i}.png" for i in range(3)), *(f"good/00{i}.png" for i in (7, 8, 9))]
    assert sorted(best) == ["good/000.png", "good/001.png", "i/001.png", "i/002.png"]


def test_strips_hold_the_images_their_truth_and_their_maps(tests: list[Sample], tmp_path: Path) -> None:
    maps = maps_of(tests)
    assert write_pictures(tmp_path, tests, scores_of(tests), maps, WHOLE) is None
    facts = json.loads((tmp_path / "pictures.json").read_text())
    count = len(facts["images"])
    assert {(one["width"], one["height"]) for one in facts["images"]} == {(TILE, TILE // 2)}
    strips = {name: Image.open(tmp_path / name) for name in ("inputs.jpg", "truth.png", "maps.png")}
    assert {strip.size for strip in strips.values()} == {(TILE * count, TILE)}
    assert strips["maps.png"].mode == "P"
    truth, levels = np.asarray(strips["truth.png"]), np.asarray(facts["levels"])
    values = levels[np.asarray(strips["maps.png"])]
    by_name = {one.name: index for index, one in enumerate(tests)}
    for place, one in enumerate(facts["images"]):
        tile = np.s_[: TILE // 2, TILE * place : TILE * (place + 1)]
        index = by_name[one["name"]]
        assert truth[tile].sum() == one["label"]  # one pixel of 20,000 is not lost
        input_ = np.asarray(strips["inputs.jpg"].convert("RGB"))[tile].reshape(-1, 3).mean(axis=0)
        assert abs(input_[0] - (40 + 30 * (int(Path(one["name"]).stem) % 7))) < 8
        full = WHOLE.backward(maps[index], (100, 200))[0]
        shrunk = np.asarray(Image.fromarray(full).resize((TILE, TILE // 2), Image.Resampling.BILINEAR))
        step = np.diff(levels).max()
        assert np.abs(values[tile] - shrunk).max() <= step
        low = shrunk < 1  # half of the levels stand where the scores are
        assert np.abs(values[tile] - shrunk)[low].max() < 0.1


def test_quantiles_are_those_of_all_test_maps(tests: list[Sample], tmp_path: Path) -> None:
    maps = maps_of(tests)
    write_pictures(tmp_path, tests, scores_of(tests), maps, WHOLE)
    stored = json.loads((tmp_path / "pictures.json").read_text())["quantiles"]
    every = np.concatenate([m.ravel() for m in maps])
    np.testing.assert_allclose(stored["values"], np.quantile(every.astype(float), stored["at"]), rtol=1e-6)
    assert stored["pixels"] == every.size
    assert scale([stored])[0] == pytest.approx(np.median(every), rel=1e-5)


def test_pillow_reads_a_recoloured_strip(tests: list[Sample], tmp_path: Path) -> None:
    write_pictures(tmp_path, tests, scores_of(tests), maps_of(tests), WHOLE)
    facts = json.loads((tmp_path / "pictures.json").read_text())
    png = recoloured((tmp_path / "maps.png").read_bytes(), facts["levels"], 0.0, 100.0)
    (tmp_path / "again.png").write_bytes(png)
    again = Image.open(tmp_path / "again.png")
    assert again.tobytes() == Image.open(tmp_path / "maps.png").tobytes()


def test_what_a_crop_hid_is_no_brighter_than_the_rest(tests: list[Sample], tmp_path: Path) -> None:
    cropped = Geometry.from_config({"short": 64, "crop": 32})
    assert write_pictures(tmp_path, tests, scores_of(tests), maps_of(tests), cropped) is None
    facts = json.loads((tmp_path / "pictures.json").read_text())
    assert all(np.isfinite(facts["levels"]))
    corner = facts["levels"][np.asarray(Image.open(tmp_path / "maps.png"))[0, 0]]
    assert corner < 1


def test_pixels_that_another_program_never_saw_are_no_scores(tests: list[Sample], tmp_path: Path) -> None:
    maps = maps_of(tests)
    for index, one in enumerate(maps):
        one[:8] = -np.inf
        one[8:] += index == 0
    maps[1][:] = -np.inf
    assert write_pictures(tmp_path, tests, scores_of(tests), maps, WHOLE) is None
    facts = json.loads((tmp_path / "pictures.json").read_text())
    assert all(np.isfinite([*facts["levels"], *facts["quantiles"]["values"]]))
    assert facts["levels"][0] >= 0
    assert facts["quantiles"]["values"][6] < 1.1


def test_without_maps_or_truth_there_are_the_others(tests: list[Sample], tmp_path: Path) -> None:
    boxed = [sample(tmp_path, "box/000.png", 1, "box", Boxes(((1, 1, 5, 5),), filled=False))]
    assert write_pictures(tmp_path, [*tests[:3], *boxed], np.arange(4.0), None, WHOLE) is None
    facts = json.loads((tmp_path / "pictures.json").read_text())
    assert "levels" not in facts
    assert not (tmp_path / "maps.png").exists()
    assert not (tmp_path / "truth.png").exists()
    assert (tmp_path / "inputs.jpg").exists()


def test_an_image_that_is_gone_costs_the_pictures_alone(tests: list[Sample], tmp_path: Path) -> None:
    for one in tests:
        one.image.unlink()
    said = write_pictures(tmp_path, tests, scores_of(tests), maps_of(tests), WHOLE)
    assert said is not None
    assert "no such file" in said
    assert not (tmp_path / "pictures.json").exists()


def test_no_curves_no_file(tmp_path: Path) -> None:
    write_curves(tmp_path, {})
    assert not list(tmp_path.iterdir())
    write_curves(tmp_path, {"full": {"roc": {"x": [0.0, 1.0], "y": [0.0, 1.0]}}})
    assert json.loads((tmp_path / "curves.json").read_text())["full"]["roc"]["x"] == [0.0, 1.0]
