"""The page of a report as files: what stands in them, that nothing escapes, that only its own change."""

from __future__ import annotations

import json
import math
import re
import struct
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ad_bench import heat
from ad_bench.errors import ResultsError
from ad_bench.report import collect, write_report
from ad_bench.report.site import Extra, write_site
from ad_bench.report.site.script import row_key, script, slug
from tests.report.made_pictures import left_by_a_run
from tests.report.made_records import bounded, record, sure, write

ROW = "made_up/patchcore/full"


def made(results: Path, *records: dict[str, Any], **more: Any) -> Path:
    """Store the records and write their site; returns its folder."""
    write(results, *records)
    return site(results, **more)


def site(results: Path, **more: Any) -> Path:
    write_site(collect(results), results, results / "html", **more)
    return results / "html"


def data(folder: Path, key: str) -> Any:
    """What a data file hands to the page."""
    text = (folder / "data" / f"{key}.js").read_text(encoding="ascii")
    found = re.fullmatch(r'adbench\.put\("([^"]+)",(.*)\);\n', text, re.DOTALL)
    assert found, text[:80]
    assert found[1] == key
    return json.loads(found[2])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_report_writes_the_page(tmp_path: Path) -> None:
    write(tmp_path, record())
    written = write_report(tmp_path)
    assert written[-1] == tmp_path / "html" / "index.html"
    page = written[-1].read_text(encoding="utf-8")
    for asset in re.findall(r'(?:src|href)="(assets/[^"]+)"', page):
        assert (tmp_path / "html" / asset).is_file(), asset
    assert "default-src 'none'" in page
    assert "http" not in re.sub(r"<meta http-equiv", "", page)


def test_the_leaderboard_has_every_metric_with_deviation_interval_and_bound(tmp_path: Path) -> None:
    first = bounded(sure(record(value=0.9), 0.02, 0.01, 0.005), 1e-4)
    second = bounded(sure(record(value=0.8, seed=1), 0.02, 0.01, 0.005), 1e-4)
    folder = made(tmp_path, first, second)
    (row,) = data(folder, "sets/made_up")["rows"]
    mean, deviation, low, high, bound = row["metrics"]["full.pixel_auroc"]
    assert mean == pytest.approx(0.85)
    assert deviation == pytest.approx(0.1 / math.sqrt(2))
    assert (low, high) == (pytest.approx(0.83), pytest.approx(0.86))
    assert bound == pytest.approx(1e-4)
    assert len(row["metrics"]["image.image_auroc"]) == 4  # exact
    assert data(folder, "index")["metrics"]["full.pixel_auroc"] == "pixel AUROC"


def test_missing_failed_and_skipped_cells_are_told_apart(tmp_path: Path) -> None:
    folder = made(
        tmp_path,
        record(method="padim", category="a"),
        record(method="padim", category="b"),
        record(method="padim", category="c"),
        record(category="a", value=0.7),
        record(category="a", value=0.9, seed=1),
        record(
            category="b",
            status="failed",
            error={
                "type": "DataError",
                "message": "cannot read /home/me/x.png",
                "traceback": "in /home/me/y",
            },
        ),
        record(category="c", status="skipped", reason="needs masks"),
        record(method="random", category="a", value=None),
    )
    cells = data(folder, "categories/made_up")
    assert cells[ROW]["metrics"]["image.image_auroc"] == [pytest.approx(0.8), "failed", "skipped"]
    assert cells["made_up/random/full"]["metrics"]["image.image_auroc"] == ["undefined", None, None]
    failed, skipped = data(folder, "problems/made_up")
    assert failed["text"] == "DataError: cannot read …/x.png"
    assert failed["cells"] == [["b", "b", 0]]
    assert (skipped["status"], skipped["text"]) == ("skipped", "needs masks")
    row = data(folder, f"rows/{ROW}")["cells"]["b"]["seeds"]["0"]
    assert row["cause"] == failed["text"]
    assert "/home" not in row["traceback"]
    sets = {one["slug"]: one for one in data(folder, "index")["datasets"]}
    assert (sets["made_up"]["failed"], sets["made_up"]["skipped"]) == (1, 1)


def test_whole_seeds_alone_count_by_category_as_in_the_tables(tmp_path: Path) -> None:
    folder = made(
        tmp_path,
        record(category="a", value=0.6),
        record(category="b", value=0.6),
        record(category="a", value=0.9, seed=1),
    )
    assert data(folder, "categories/made_up")[ROW]["metrics"]["image.image_auroc"] == [0.6, 0.6]


def test_published_values_stand_beside_ours_and_alone(tmp_path: Path) -> None:
    folder = made(tmp_path, record("mvtec", "bottle"))
    page = data(folder, "sets/mvtec")
    (row,) = page["rows"]
    value, standing, _ = row["published"]["image_auroc"]
    assert (value, standing) == (0.992, "survey")
    assert len(page["categories"]) == 15
    alone = {(one["id"], one["protocol"]) for one in page["published"]}
    assert ("rd4ad", "full") in alone
    assert ("patchcore", "full") not in alone
    cells = data(folder, "categories/mvtec")["mvtec/patchcore/full"]
    assert cells["published"]["image_auroc"][0] == 1.0
    assert cells["metrics"]["image.image_auroc"][:2] == [0.9, None]


def test_a_row_holds_what_its_cells_share_once(tmp_path: Path) -> None:
    paths = write(tmp_path, *(record(category=name, versions={"torch": "2.6"}) for name in "abc"))
    for path in paths:
        left_by_a_run(path)
    row = data(site(tmp_path), f"rows/{ROW}")
    assert len(row["setups"]) == len(row["configs"]) == 1
    assert row["setups"][0]["versions"] == {"torch": "2.6"}
    cell = row["cells"]["b"]["seeds"]["0"]
    assert cell["scores"] == ["2.0", "5.0 6.0"]
    figures = struct.unpack(f"<{3 * len(row['layout'])}d", b64decode(cell["figures"]))
    assert row["layout"][0] == ["image", "image_auroc"]
    assert figures[0] == 0.9
    assert math.isnan(figures[1])  # no interval
    assert cell["kinds"] == [["broken", "bent"], [0, 1]]
    assert cell["curves"]["pro"] == [[0.0, 0.1, 1.0], [0.0, 0.9, 1.0]]


def test_files_of_a_run_that_make_no_sense_are_named_and_hide_nothing_else(tmp_path: Path) -> None:
    paths = write(tmp_path, record(category="a"), record(category="b"), record(category="c"))
    for path in paths:
        left_by_a_run(path)
    (paths[0].parent / "samples.csv").write_text("path,label,defect,score\nx,1,dent,much\n", encoding="utf-8")
    (paths[0].parent / "curves.json").write_text(
        '{"full": {"roc": {"x": [0], "y": [0, 1]}}}', encoding="utf-8"
    )
    (paths[1].parent / "pictures.json").write_text('{"tile": 96, "images": [{}]}', encoding="utf-8")
    (paths[2].parent / "maps.png").write_bytes(b"no picture")
    folder = site(tmp_path)
    cells = {name: found["seeds"]["0"] for name, found in data(folder, f"rows/{ROW}")["cells"].items()}
    assert len(cells["a"]["unreadable"]) == 2
    assert "scores" not in cells["a"]
    assert "figures" in cells["a"]
    assert "pictures" not in cells["b"]
    assert cells["c"]["pictures"]["files"] == ["inputs.jpg", "truth.png"]
    remarks = " ".join(data(folder, "index")["remarks"])
    assert "pictures.json of made_up/patchcore/full, b, seed 0" in remarks
    assert "maps.png cannot be used: no PNG" in remarks


def test_maps_have_one_scale_for_all_cells_of_a_row(tmp_path: Path) -> None:
    quiet, loud = write(tmp_path, record(category="a"), record(category="b"))
    left_by_a_run(quiet, 0, 10)
    left_by_a_run(loud, 0, 30)
    folder = site(tmp_path)
    scales, maps = [], []
    for category in "ab":
        shown = data(folder, f"gallery/made_up/{category}")[ROW]
        scales.append(shown["scale"])
        maps.append((folder / shown["dir"] / "maps.png").read_bytes())
    stored = [json.loads((p.parent / "pictures.json").read_text())["quantiles"] for p in (quiet, loud)]
    assert scales[0] == scales[1] == list(heat.scale(stored))
    palettes = [png[png.index(b"PLTE") + 4 :][:768] for png in maps]
    assert palettes[0] != palettes[1]  # one scale: the same grey level is another score in each
    levels = [30 * level / 255 for level in range(256)]
    low, high = scales[0]
    assert palettes[1] == heat.colour([(level - low) / (high - low) for level in levels]).tobytes()


def test_the_gallery_joins_rows_of_one_category_and_lives_without_maps(tmp_path: Path) -> None:
    with_maps, without = write(tmp_path, record(), record(method="padim"))
    left_by_a_run(with_maps)
    left_by_a_run(without, with_maps=False)
    folder = site(tmp_path)
    gallery = data(folder, "gallery/made_up/a")
    assert [image["name"] for image in gallery[ROW]["images"]] == [
        "broken/000.png",
        "bent/003.png",
        "good/001.png",
    ]
    other = gallery["made_up/padim/full"]
    assert "scale" not in other
    assert other["files"] == ["inputs.jpg", "truth.png"]
    assert data(folder, "index")["datasets"][0]["gallery"] == ["a"]


def test_the_same_records_give_the_same_bytes_and_touch_nothing_twice(tmp_path: Path) -> None:
    (path,) = write(tmp_path, record())
    left_by_a_run(path)
    folder = site(tmp_path)
    before = everything(folder)
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    site(tmp_path)
    assert everything(folder) == before
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == times
    write_site(collect(tmp_path), tmp_path, tmp_path / "elsewhere")
    assert everything(tmp_path / "elsewhere") == before


def test_files_of_an_earlier_site_go_and_others_stay(tmp_path: Path) -> None:
    paths = write(tmp_path, record(), record(method="padim"))
    for path in paths:
        left_by_a_run(path)
    folder = site(tmp_path)
    (folder / "mine.txt").write_text("kept")
    (tmp_path / "outside.txt").write_text("kept")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    manifest |= {"../outside.txt": "", str(tmp_path / "outside.txt"): "", "": "", "link/outside.txt": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert (folder / "data/methods/padim.js").is_file()
    for path in sorted(paths[1].parent.iterdir()):
        path.unlink()
    site(tmp_path)
    assert not [name for name in everything(folder) if "padim" in name]
    assert not [p for p in folder.rglob("*") if p.is_dir() and not any(p.iterdir())]  # no empty folders
    assert (folder / "mine.txt").is_file()
    assert (tmp_path / "outside.txt").is_file()


def test_maps_are_made_again_where_the_scale_changed(tmp_path: Path) -> None:
    (path,) = write(tmp_path, record(category="a"))
    left_by_a_run(path)
    folder = site(tmp_path)
    (maps,) = folder.glob("pictures/**/maps.png")
    before = maps.read_bytes()
    (other,) = write(tmp_path, record(category="b"))
    left_by_a_run(other, 0, 100)
    site(tmp_path)
    assert maps.read_bytes() != before


def test_the_method_page_has_source_settings_and_deviations(tmp_path: Path) -> None:
    ours, external = write(tmp_path, record(), record(method="padim", fidelity="external"))
    left_by_a_run(ours)
    left_by_a_run(
        external, config="name: padim\n"
    )  # scored maps of another program: our file says nothing of it
    verdict = SimpleNamespace(
        dataset="made_up", method="patchcore", variant="", protocol="full", category="", metric="image_auroc",
        ours=0.9, published=0.95, difference=-0.05, standing="paper", verdict="off", why="too low",
    )  # fmt: skip
    folder = site(tmp_path, verdicts=[verdict])
    page = data(folder, "methods/patchcore")
    assert page["yaml"].startswith("# [P] arXiv:2106.08265")
    assert "_target_: ad_bench.methods.patchcore.PatchCore" in page["composed"]
    assert "Deviations from the reference:" in page["about"]
    assert page["links"][0] == ["arXiv:2106.08265", "https://arxiv.org/abs/2106.08265"]
    assert page["verdicts"][0]["verdict"] == "off"
    other = data(folder, "methods/padim")
    assert (other["about"], other["verdicts"]) == ("", [])


def test_links_are_those_of_papers_alone(tmp_path: Path) -> None:
    folder = made(tmp_path, record(method="mine", paper={"arxiv": 'javascript:alert("1")'}))
    assert data(folder, "methods/mine")["links"] == []


def test_extras_are_pages_of_their_own(tmp_path: Path) -> None:
    extra = Extra(
        "claims", "The survey's claims", ["One."], ["claim", "holds"], [["a", "yes"]], "<svg></svg>", "p"
    )
    folder = made(tmp_path, record(), extras=[extra])
    page = data(folder, "more/claims")
    assert page["rows"] == [["a", "yes"]]
    assert (folder / page["picture"]).read_text() == "<svg></svg>"
    assert data(folder, "index")["extras"] == [["claims", "The survey's claims"]]


def test_no_string_of_a_record_leaves_its_quotes(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)><!--\u2028\"'\\"
    records = (
        record(method="evil", title=hostile, variant=hostile, marks=[hostile], warnings=[hostile]),
        record(method="evil", category="../../b", status="skipped", reason=hostile),
        record(category=hostile, notes={"x": float("nan")}),
    )
    for place, one in enumerate(
        records
    ):  # as an archive of another lab may have them: in folders of any name
        path = tmp_path / "cells" / "x" / "x" / "x" / "x" / str(place) / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(one), encoding="ascii")
    folder = site(tmp_path)
    for name, content in everything(folder).items():
        if name.startswith("data/"):
            content.decode("ascii")
            assert b"<" not in content
        assert ".." not in Path(name).parts
    row = data(folder, f"rows/{row_key('made_up', 'evil', hostile, 'full')}")
    assert row["title"] == hostile  # and nothing of it is lost


def test_what_json_or_utf8_has_no_word_for() -> None:
    assert (
        script("a", [float("nan"), {"b": (float("inf"), 1)}]) == 'adbench.put("a",[null,{"b":[null,1]}]);\n'
    )
    assert script("a", "\ud800").isascii()
    assert slug("\ud800").isascii()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write(tmp_path, record())
    (tmp_path / "html").write_text("a file")
    with pytest.raises(ResultsError, match=r"cannot write the page to .*html"):
        site(tmp_path)
