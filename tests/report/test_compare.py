"""adbench compare: two rows cell by cell, paired over their test images."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ad_bench.cli import main
from ad_bench.errors import UsageError
from ad_bench.metrics.bootstrap import draws, replicate_images
from ad_bench.report import collect
from ad_bench.report.compare import Comparison, compare, comparison_csv, comparison_json
from ad_bench.report.significance import delong
from tests.report.made_records import record, write

LABELS = [0] * 12 + [1] * 18


def scores_of(strength: float, seed: int) -> np.ndarray:
    return np.array(LABELS) * strength + np.random.default_rng(seed).normal(size=len(LABELS))


def metrics_of(scores: np.ndarray, labels: list[int]) -> dict[str, float]:
    names = ["image_auroc", "image_aupr", "image_f1max"]
    whole = np.ones((1, len(labels)), np.int64)
    return {name: float(own[0]) for name, own in replicate_images(scores, labels, names, whole).items()}


def put(
    results: Path,
    method: str,
    scores: np.ndarray,
    category: str = "a",
    images: list[str] | None = None,
    labels: list[int] = LABELS,
    **changes: Any,
) -> dict[str, Any]:
    """A record with the samples.csv that its image metrics are of."""
    made = record(category=category, method=method, **changes)
    made["metrics"]["image"] = metrics_of(scores, labels)
    (path,) = write(results, made)
    names = images or [f"{category}/test/{i:03}.png" for i in range(len(labels))]
    lines = [
        f"{n},{y},{'crack' if y else ''},{float(s)!r}" for n, y, s in zip(names, labels, scores, strict=True)
    ]
    (path.parent / "samples.csv").write_text("path,label,defect,score\n" + "\n".join(lines) + "\n")
    return made


def run(results: Path, a: str = "patchcore", b: str = "padim", **named: Any) -> Comparison:
    return compare(collect(results), results, a, b, **named)


def test_a_cell_is_tested_by_delong_over_its_images(tmp_path: Path) -> None:
    a, b = scores_of(2.0, 1), scores_of(0.5, 2)
    put(tmp_path, "patchcore", a)
    order = np.random.default_rng(0).permutation(len(LABELS))  # another program's order of the same images
    put(
        tmp_path,
        "padim",
        b[order],
        images=[f"a/test/{i:03}.png" for i in order],
        labels=[LABELS[i] for i in order],
    )
    (cell,) = run(tmp_path).cells
    expected = delong(a, b, LABELS)
    assert (cell.p, cell.test, cell.images) == (pytest.approx(expected.p), "DeLong", 30)
    assert cell.difference == pytest.approx(expected.first - expected.second)
    assert cell.interval == pytest.approx(expected.interval())


def test_holm_is_over_the_tested_cells_and_wilcoxon_over_all(tmp_path: Path) -> None:
    for i, category in enumerate("abcdef"):
        put(tmp_path, "patchcore", scores_of(1.5, i), category)
        put(tmp_path, "padim", scores_of(0.3, 10 + i), category)
    (tmp_path / "cells/made_up/f/padim/full-seed0" / ("0" * 12) / "samples.csv").unlink()
    found = run(tmp_path)
    assert [cell.p is None for cell in found.cells] == [False] * 5 + [True]
    assert "padim has no samples.csv" in found.cells[5].note
    smallest = min(found.cells[:5], key=lambda cell: cell.p or 0)
    assert smallest.corrected == pytest.approx(min(1, 5 * (smallest.p or 0)))
    differences = [cell.difference for cell in found.cells]
    assert found.mean == pytest.approx(np.mean(differences))
    assert found.overall.p == pytest.approx(2 / 64)
    error = np.std(differences, ddof=1) / 6**0.5
    assert found.interval == pytest.approx((found.mean - 2.570582 * error, found.mean + 2.570582 * error))


def test_other_image_metrics_have_a_paired_bootstrap(tmp_path: Path) -> None:
    a, b = scores_of(2.0, 1), scores_of(0.5, 2)
    put(tmp_path, "patchcore", a)
    put(tmp_path, "padim", b)
    (cell,) = run(tmp_path, metric="image_aupr").cells
    weights = draws(LABELS, 2000, 0)
    scatter = np.subtract(
        *(replicate_images(s, LABELS, ["image_aupr"], weights)["image_aupr"] for s in (a, b))
    )
    assert cell.test == "paired bootstrap"
    assert cell.interval == pytest.approx(tuple(np.quantile(scatter, [0.025, 0.975])))
    assert cell.p is not None
    assert cell.p < 0.05
    order = np.random.default_rng(0).permutation(len(LABELS))  # the order in a file changes nothing
    names = [f"a/test/{i:03}.png" for i in order]
    put(tmp_path, "patchcore", a[order], images=names, labels=[LABELS[i] for i in order])
    assert run(tmp_path, metric="image_aupr").cells[0].p == cell.p
    assert run(tmp_path, metric="image_aupr").cells[0].interval == pytest.approx(cell.interval)
    put(tmp_path, "padim", a)  # the very same scores
    (cell,) = run(tmp_path, metric="image_aupr").cells
    assert (cell.p, cell.interval) == (1.0, (0.0, 0.0))


def test_pixel_metrics_are_not_tested_within_a_cell(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(1, 1), value=0.9)
    put(tmp_path, "padim", scores_of(1, 2), value=0.8)
    found = run(tmp_path, metric="pixel_aupro")
    assert (found.section, found.cells[0].p) == ("full", None)
    assert any("records hold no pixels" in text for text in found.remarks)
    assert run(tmp_path, metric="paper.pixel_auroc").section == "paper"


def test_common_seeds_alone_are_averaged_and_said(tmp_path: Path) -> None:
    first, second = scores_of(2, 1), scores_of(1, 2)
    put(tmp_path, "patchcore", first)
    put(tmp_path, "patchcore", second, seed=1, fingerprint={"cell": "1" * 12})
    put(tmp_path, "padim", scores_of(0.5, 3))
    (cell,) = run(tmp_path).cells
    assert cell.seeds == ((0,), (0,))
    assert cell.first == pytest.approx(metrics_of(first, LABELS)["image_auroc"])
    assert "common seeds alone (A has 0, 1, B 0)" in cell.note
    put(tmp_path, "padim", scores_of(0.5, 4), seed=1, fingerprint={"cell": "1" * 12})
    (cell,) = run(tmp_path).cells
    expected = delong([first, second], [scores_of(0.5, 3), scores_of(0.5, 4)], LABELS)
    assert (cell.seeds, cell.p) == (((0, 1), (0, 1)), pytest.approx(expected.p))


def test_seeds_without_overlap_are_compared_and_said(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1))
    put(tmp_path, "padim", scores_of(0.5, 3), seed=1)
    (cell,) = run(tmp_path).cells
    assert cell.seeds == ((0,), (1,))
    assert "no seed in common (A has 0, B 1)" in cell.note
    assert cell.p is not None  # the test images are the same


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": [f"other/{i}.png" for i in range(30)]}, "different test images (60 of 60 not in both)"),
        ({"labels": [1] * 18 + [0] * 12}, "the same images have different labels"),
        ({"images": ["a/test/000.png"] * 30}, "padim lists an image twice"),
        ({"averaged": ["logical", "structural"]}, "the value is a mean over kinds of defects"),
    ],
)
def test_what_cannot_be_paired_is_not_tested(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1))
    put(tmp_path, "padim", scores_of(0.5, 3), **change)
    (cell,) = run(tmp_path).cells
    assert (cell.p, cell.test) == (None, "")
    assert why in cell.note


def test_samples_of_another_run_are_not_tested(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1))
    made = put(tmp_path, "padim", scores_of(0.5, 3))
    made["metrics"]["image"]["image_auroc"] += 0.01
    write(tmp_path, made)
    (cell,) = run(tmp_path).cells
    assert cell.p is None
    assert "not the records' values" in cell.note


def test_broken_samples_are_not_tested(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1))
    put(tmp_path, "padim", scores_of(0.5, 3))
    path = tmp_path / "cells/made_up/a/padim/full-seed0" / ("0" * 12) / "samples.csv"
    for text in (
        "path,label\n",
        "path,label,defect,score\nx,1,,high\n",
        "path,label,defect,score\nx,1,,nan\n",
    ):
        path.write_text(text)
        assert run(tmp_path).cells[0].p is None


def test_a_fingerprint_is_no_way_out_of_the_results(tmp_path: Path) -> None:
    from ad_bench.report.compare import folder_of

    made = record(fingerprint={"cell": "../../../../../../elsewhere"})
    assert folder_of(tmp_path, made) == tmp_path / "cells/made_up/a/patchcore/full-seed0/elsewhere"
    assert folder_of(tmp_path, record(fingerprint={"cell": ".."})).resolve().is_relative_to(tmp_path)


def test_protocols_may_differ_and_are_said(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1))
    put(tmp_path, "patchcore", scores_of(1, 1), protocol="few_shot-4")
    put(tmp_path, "padim", scores_of(1, 1), category="b")
    found = run(tmp_path, "patchcore", "patchcore:few_shot-4")
    assert found.remarks[0] == "Different protocols: A full, B few_shot-4."


def test_wrong_rows_are_refused_with_the_closest(tmp_path: Path) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1), variant="k=9")
    put(tmp_path, "padim", scores_of(1, 1), category="b")
    put(tmp_path, "cfa", scores_of(1, 1), protocol="few_shot-2")
    put(tmp_path, "cfa", scores_of(1, 1), protocol="few_shot-4")
    put(tmp_path, "spade", scores_of(1, 1), protocol="few_shot-4")
    assert run(tmp_path, "spade", "patchcore@k=9").first.name == "spade:few_shot-4"  # its only protocol
    for a, b, text in (
        ("patchcor@k=9", "padim", "Did you mean patchcore@k=9"),
        ("patchcor", "padim", r"Did you mean patchcore\?"),
        ("patchcore", "padim", "no row 'patchcore' without a variant; there are: patchcore@k=9"),
        ("cfa", "padim", "several protocols: cfa:few_shot-2, cfa:few_shot-4"),
        ("padim", "padim", "the same row"),
        ("padim", "patchcore@k=9", "no cell with image_auroc in common; padim has 1 of made_up"),
    ):
        with pytest.raises(UsageError, match=text):
            run(tmp_path, a, b)
    with pytest.raises(UsageError, match=r"metric 'image_aurc'.*image_auroc"):
        run(tmp_path, "spade", "patchcore@k=9", metric="image_aurc")
    with pytest.raises(UsageError, match=r"data set 'made_upp'.*made_up"):
        run(tmp_path, "spade", "patchcore@k=9", datasets=["made_upp"])


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    for category in "ab":
        put(tmp_path, "patchcore", scores_of(2, 1), category)
        put(tmp_path, "padim", scores_of(0.5, 3), category)
    put(tmp_path, "padim", scores_of(0.5, 3), "c")
    found = run(tmp_path)
    lines = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    loaded = json.loads(comparison_json(found))
    assert [line["dataset"] for line in lines] == ["made_up", "made_up", "mean"]
    assert [float(line["p"]) for line in lines[:2]] == [cell["p"] for cell in loaded["cells"]]
    assert float(lines[2]["difference"]) == loaded["overall"]["difference"]
    assert any("of B (padim) alone: 1 cells (made_up/c)" in text for text in loaded["remarks"])
    assert all(None not in line.values() and None not in line for line in lines)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "patchcore", scores_of(2, 1), variant="k=9")
    put(tmp_path, "padim", scores_of(0.5, 3), title="[bold]PaDiM")
    words = ["compare", "patchcore@k=9", "padim", f"paths.results={tmp_path}"]
    assert main([*words, f"--csv={tmp_path / 'out.csv'}"]) == 0
    text = capsys.readouterr().out
    assert "[bold]PaDiM" in text  # a title is no markup
    assert "DeLong" in text
    assert (tmp_path / "out.csv").read_text().startswith("dataset,category,metric")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == "patchcore@k=9"
    assert main(["compare", "padim", f"paths.results={tmp_path}"]) == 2
    assert "takes two rows, got 1" in capsys.readouterr().err
