"""What ad_bench/metrics/README.md says is what the code answers: its table of odd cases, row by row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ad_bench import external, groundtruth
from ad_bench.errors import DataError, PredictionError, UsageError
from ad_bench.geometry import Geometry
from ad_bench.metrics import PixelTruth, at_threshold, catalogue, check_names, evaluate
from ad_bench.metrics.bootstrap import bootstrap_images, bootstrap_pixels, replicate_images, replicate_pixels
from ad_bench.metrics.compat import MODES, compatible_with_reasons
from ad_bench.metrics.settings import MetricSettings
from ad_bench.runner.evaluation import score_cell
from ad_bench.runner.external import evaluate_with_truth
from ad_bench.runner.scoring import check_finite
from ad_bench.samples import NORMAL, MaskFiles, Sample

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "ad_bench/metrics/README.md").read_text(encoding="utf-8")
LIMITS = {"pixel_aupro": 0.3, "pixel_spro": 0.05}
ERRORS = {error.__name__: error for error in (ValueError, DataError, PredictionError, UsageError)}
INF = math.inf
LOW = np.array([[0.1, 0.2], [0.3, 0.4]])
HIGH = np.array([[0.1, 0.2], [0.3, 0.9]])
CLEAN = np.zeros((2, 2), bool)
SPOT = np.array([[0, 0], [0, 1]], bool)


@dataclass
class Answer:
    """What the code did: values by name, and all that it said."""

    values: Mapping[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    known: Mapping[str, float] = field(default_factory=dict)  # what formulas of the table may use


def api(metrics: list[str] | None = None, known: Mapping[str, float] | None = None, **change: Any) -> Answer:
    """`evaluate` of a normal and an anomalous image, changed in one point."""
    given = {"maps": [LOW, HIGH], "masks": [CLEAN, SPOT], "image_scores": [0.4, 0.9], "labels": [0, 1]}
    found = evaluate(**(given | change), metrics=metrics)
    return Answer(found.values, list(found.reasons.values()), known or {})


def run(folder: Path, masks: list[np.ndarray | None], above: int = 0, maps: Any = (LOW, HIGH)) -> Answer:
    """`score_cell` of two images of 2 x 2, as `adbench run` calls it."""
    samples = []
    for label, mask in enumerate(masks):
        file = folder / f"{label}_mask.png"
        if mask is not None:
            write_mask(file, mask)
        truth = None if mask is None else MaskFiles((file,), above)
        defect = "crack" if label else "good"
        samples.append(Sample(folder / f"{label}.png", f"{label}.png", "c", "test", label, defect, truth))
    found = score_cell(samples, np.array([0.4, 0.9]), maps, [(2, 2)] * 2, Geometry(), None)
    return Answer(
        found.metrics["full"] | found.metrics["image"], [*found.undefined.values(), *found.warnings]
    )


def write_mask(file: Path, mask: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * (255 if mask.dtype == bool else 1)).save(file)


def maps_of_files(
    folder: Path, maps: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], full: bool = False
) -> Answer:
    """As `adbench evaluate --ground-truth`; without `full` reading alone, where an error is wanted."""
    for name, values in maps.items():
        (folder / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "maps" / f"{name}.npy", values)
    for name, mask in masks.items():
        write_mask(folder / "masks" / f"{name}_mask.png", mask)
    if full:
        (found,) = evaluate_with_truth(folder / "maps", folder / "masks")["categories"].values()
        return Answer(found["metrics"]["full"], found["warnings"])
    readers = external.find_maps(folder / "maps")
    for name in readers:
        readers[name]()
    for category in groundtruth.match(folder / "masks", folder / "maps", readers):
        groundtruth.read_truth(category)
    return Answer()


def pair(normal: np.ndarray = LOW, crack: np.ndarray = HIGH) -> dict[str, np.ndarray]:
    return {"good/0": normal, "crack/0": crack}


def compat(mode: str, *maps: np.ndarray) -> Answer:
    values, reasons = compatible_with_reasons(mode, list(maps), PixelTruth.of([CLEAN, SPOT]), [0, 1], [0, 1])
    return Answer(values, list(reasons.values()))


def finite(score: float, values: np.ndarray) -> Answer:
    check_finite(np.array([score]), [values], [Sample(Path("0.png"), "0.png", "c", "test", NORMAL, "good")])
    return Answer()


def with_defects(saturation: int, mask: np.ndarray = SPOT, maps: np.ndarray = HIGH) -> Answer:
    """`evaluate` of one image with one defect, pixel_spro included."""
    names = [name for name in catalogue() if name.startswith("pixel_")]
    one = {"maps": [maps], "masks": [SPOT], "image_scores": [1], "labels": [1]}
    return api(names, {"p": float(mask.mean())}, **one, defects=[[(mask, saturation)]])


def threshold_of(values: list[list[float]], mask: list[list[int]]) -> Answer:
    found = evaluate([np.array(values)], [np.array(mask, bool)], [1], [1])
    return Answer({"threshold": found.thresholds["pixel"]})


def intervals(*labels: int) -> Answer:
    truth = PixelTruth.of([SPOT if label else CLEAN for label in labels])
    maps = [HIGH if label else LOW for label in labels]
    names = list(catalogue())
    found = bootstrap_images(labels, labels, names) | bootstrap_pixels(maps, truth, names, labels=labels)
    assert bootstrap_images([0, 1, 2, 3], [0, 0, 1, 1], ["image_auroc"])
    return Answer({"intervals": len(found)}, list(evaluate(maps, truth, labels, labels).reasons))


def changed(values: np.ndarray, value: float, dtype: Any = float) -> np.ndarray:
    """The map with another value in its last pixel, the defect."""
    found = values.astype(dtype)
    found[1, 1] = value
    return found


ALL = np.ones((2, 2), bool)
CASES: dict[str, Callable[[Path], Any]] = {
    "no-defect-pixel": lambda _: api(masks=[CLEAN, CLEAN]),
    "no-normal-pixel": lambda _: api(masks=[ALL, ALL]),
    "no-anomalous-image": lambda _: api(masks=[CLEAN, CLEAN], labels=[0, 0]),
    "no-normal-image": lambda _: api(labels=[1, 1]),
    "empty-set": lambda _: api(maps=[], masks=[], image_scores=[], labels=[]),
    "all-left-out": lambda _: api(ignore=[ALL, ALL]),
    "no-maps-run": lambda folder: run(folder, [None, SPOT], maps=None),
    "no-maps-api": lambda _: api(["pixel_auroc"], maps=None),
    "no-masks-api": lambda _: api(["pixel_auroc"], masks=None),
    "mask-missing-run": lambda folder: run(folder, [None, None]),
    "mask-missing-api": lambda _: api(masks=[CLEAN, None]),
    "mask-missing-maps": lambda folder: maps_of_files(
        folder, {"crack/0": HIGH, "crack/1": HIGH}, {"crack/0": SPOT}
    ),
    "mask-none-normal": lambda _: api(masks=[None, SPOT]),
    "mask-empty": lambda folder: run(folder, [None, CLEAN]),
    "mask-of-normal-maps": lambda folder: maps_of_files(folder, pair(), {"good/0": SPOT, "crack/0": SPOT}),
    "mask-grey-api": lambda _: api(masks=[CLEAN, SPOT * 128]),
    "mask-grey-maps": lambda folder: maps_of_files(folder, pair(), {"crack/0": SPOT * 128}),
    "mask-grey-run": lambda folder: run(folder, [None, np.array([[0, 127], [0, 128]])], above=127),
    "mask-size-api": lambda _: api(masks=[CLEAN, np.ones((2, 3), bool)]),
    "mask-size-run": lambda folder: run(folder, [None, np.ones((2, 3), bool)]),
    "mask-size-maps": lambda folder: maps_of_files(
        folder, pair(crack=HIGH.repeat(2, 0)), {"crack/0": SPOT}, full=True
    ),
    "constant-map": lambda _: with_defects(1, maps=np.full((2, 2), 3.5)),
    "constant-scores": lambda _: api(
        known={"p": 2 / 3}, maps=None, masks=None, image_scores=[7, 7, 7], labels=[0, 1, 1]
    ),
    "perfect": lambda _: with_defects(1, maps=SPOT.astype(float)),
    "nan-map": lambda _: api(maps=[LOW, changed(HIGH, math.nan)]),
    "inf-map": lambda _: api(maps=[LOW, changed(HIGH, INF)]),
    "nan-score": lambda _: api(
        maps=None, masks=None, image_scores=[0.1, math.nan, INF, 1.0], labels=[0, 1, 0, 1]
    ),
    "nan-map-run": lambda _: finite(0.5, changed(HIGH, -INF)),
    "nan-score-run": lambda _: finite(math.nan, HIGH),
    "nan-map-maps": lambda folder: maps_of_files(
        folder, pair(crack=changed(HIGH, math.nan)), {"crack/0": SPOT}
    ),
    "nan-left-out": lambda _: api(maps=[changed(LOW, math.nan), HIGH], ignore=[SPOT, CLEAN]),
    "minus-inf": lambda _: api(maps=[LOW, changed(HIGH, -INF)]),
    "minus-inf-resized": lambda folder: maps_of_files(
        folder, pair(crack=changed(HIGH, -INF).repeat(2, 0)), {"crack/0": SPOT}, full=True
    ),
    "all-called": lambda _: threshold_of([[-INF, 0.5, -INF]], [[1, 0, 1]]),
    "one-image": lambda _: intervals(0, 1),
    "no-saturation": lambda _: api(["pixel_spro"]),
    "saturation-zero": lambda _: with_defects(0),
    "saturation-more": lambda _: with_defects(9),
    "defects-not-mask": lambda _: with_defects(1, mask=CLEAN),
    "float16": lambda _: api(maps=[LOW.astype(np.float16), HIGH.astype(np.float16)]),
    "integers": lambda _: api(maps=[np.full((2, 2), 2**53 - 1), changed(HIGH, 2**53, np.int64)]),
    "integers-maps": lambda folder: maps_of_files(
        folder, pair(np.full((2, 2), 2**24), SPOT + 2**24), {"crack/0": SPOT}, full=True
    ),
    "no-numbers": lambda _: api(maps=[LOW, HIGH.astype(complex)]),
    "labels": lambda _: api(labels=[0, 2]),
    "lengths": lambda _: api(maps=[LOW]),
    "threshold-nan": lambda _: MetricSettings.from_config({"threshold": {"pixel": math.nan}}),
    "threshold-high": lambda _: Answer(at_threshold([LOW, HIGH], [CLEAN, SPOT], 5.0)),
    "limit": lambda _: MetricSettings.from_config({"aupro_limits": [0.3, 1.5]}),
    "name": lambda _: check_names(["pixel_aupo"]),
    "ader-constant": lambda _: compat("ader", CLEAN * 1.0, CLEAN * 1.0),
    "ader-minus-inf": lambda _: compat("ader", LOW, changed(HIGH, -INF)),
    "ader-top": lambda _: compat("ader", ALL * 1.0, SPOT * 1.0),
    "imiad-constant": lambda _: compat("imiad", CLEAN * 1.0, CLEAN * 1.0),
}


def rows() -> dict[str, tuple[str, list[str]]]:
    """Of each row of the last table: its answer, and what stands in backticks in its last column."""
    table = README.split("## What has no value, and what is odd")[1]
    cells = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("|")]
    assert all(len(row) == 4 for row in cells[:1] + cells[2:])
    found = {row[0]: (row[2], re.findall(r"`([^`]+)`", row[3])) for row in cells[2:]}
    assert len(found) == len(cells) - 2  # no id twice
    return found


ROWS = rows()


def test_every_row_has_its_case() -> None:
    assert list(ROWS) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_the_documented_one(name: str, tmp_path: Path) -> None:
    answer, spans = ROWS[name]
    if error := re.match(r"`(\w+Error)`", answer):
        with pytest.raises(ERRORS[error[1]]) as caught:
            CASES[name](tmp_path)
        found = Answer(said=[str(caught.value)])
    else:
        found = CASES[name](tmp_path)
    if nan := re.match(r"`nan`(?: for (\w+))?", answer):
        prefix = {None: "", "pixels": "pixel_", "images": "image_"}.get(nan[1], nan[1])
        without = {name for name, value in found.values.items() if math.isnan(value)}
        assert without == {name for name in found.values if name.startswith(prefix)} != set()
    assert spans
    for span in spans:
        formula = re.fullmatch(r"(\w+) = (\S+)", span)
        if formula:
            wanted = worth(*formula.groups(), found.known)
            assert found.values[formula[1]] == pytest.approx(wanted, abs=1e-15, nan_ok=True)
        else:
            assert said_by(span, found.said), found.said


def worth(name: str, text: str, known: Mapping[str, float]) -> float:
    """What a formula of the table comes to: numbers, p and L with + * /."""
    if text in ("nan", "inf", "-inf"):
        return float(text)
    assert re.fullmatch(r"[\dpL+*/().]+", text), text
    return float(eval(text, {"__builtins__": {}}, {"L": LIMITS.get(name), **known}))


def said_by(span: str, said: list[str]) -> bool:
    """Whether one of the texts has the span, whose … stands for anything; at an end it need not be there."""
    pattern = ".*".join(map(re.escape, span.split("…")))
    return any(re.search(pattern, text, re.S) for text in said)


def test_every_metric_and_every_setting_is_named() -> None:
    named = set(re.findall(r"`([\w.@]+)`", README))
    assert set(catalogue()) <= named
    assert set(MODES) <= named
    settings = yaml.safe_load((ROOT / "conf/metric/default.yaml").read_text(encoding="utf-8"))
    keys = {
        f"metric.{key}" + (f".{part}" if part else "")
        for key, value in settings.items()
        for part in (value if isinstance(value, dict) else [""])
    }
    assert {name for name in named if name.startswith("metric.")} - {"metric.intervals"} == keys


def test_the_example_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, flags=re.M | re.S)
    given: dict[str, Any] = {
        "masks": [CLEAN, SPOT], "maps": [LOW, HIGH], "scores": [0.4, 0.9], "labels": [0, 1],
    }  # fmt: skip
    exec(block, given)
    assert set(given["result"].values) == set(catalogue()) - {"pixel_spro"}


def test_the_files_it_names_are_there() -> None:
    for name in re.findall(r"`((?:tests|scripts|conf)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([\w/]+\.py)`", README):
        folders = (ROOT, ROOT / "ad_bench", ROOT / "ad_bench/metrics")
        assert any((folder / name).is_file() for folder in folders), name


def test_every_metric_has_its_replicates_and_its_bound() -> None:
    # What CONTRIBUTING.md asks of a new one. A replicate in which each image is drawn once is the set itself.
    rng = np.random.default_rng(0)
    masks = [rng.random((16, 16)) < share for share in (0, 0, 0.1, 0.3, 0.2)]
    maps = [rng.integers(0, 40, mask.shape) + 9.0 * mask for mask in masks]
    truth = PixelTruth.of(masks, None, [[(mask, 5)] if mask.any() else None for mask in masks])
    scores, labels = [0.1, 0.6, 0.5, 0.9, 0.2], [0, 0, 1, 1, 1]
    names = [*catalogue(), "pixel_aupro@0.05", "pixel_spro@0.3"]
    exact = evaluate(maps, truth, scores, labels, names).values
    assert len({round(value, 6) for value in exact.values()}) == len(names)  # or one could stand for another
    once = np.ones((1, 5), np.int64)
    again = replicate_images(scores, labels, names, once) | replicate_pixels(maps, truth, names, once)
    assert {name: again[name][0] for name in names} == pytest.approx(exact, abs=1e-12)
    counted = evaluate(maps, truth, scores, labels, names, memory=0)
    assert set(counted.bounds) == {name for name in names if name.startswith("pixel_")}
    for name, bound in counted.bounds.items():
        assert abs(counted.values[name] - exact[name]) <= bound
