"""Records to another lab and back: what two labs know is shown, what means harm changes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_bench import cli, foreign, records, sharing
from ad_bench.errors import DataError, ResultsError, UsageError
from ad_bench.report import collect, write_report
from tests.report.made_records import record, write

SCORES = "path,label,defect,score\na/test/good/0.png,0,good,0.5\n"
FP = "0" * 12
HOME = f"cells/made_up/a/patchcore/full-seed0/{FP}"


def results_of(folder: Path, *made: dict[str, Any]) -> Path:
    for path in write(folder, *(made or (record(),))):
        path.with_name("samples.csv").write_text(SCORES)
        path.with_name("config.yaml").write_text("seed: 0\n")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def packed(held: dict[str, bytes], manifest: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """A zip with a manifest that fits its files; `changes` replace the manifest's fields."""
    listed = {n: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in held.items()}
    manifest = manifest or {"kind": "adbench results", "version": 1, "files": listed, **changes}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("manifest.json", json.dumps(manifest))
        for name, content in held.items():
            bundle.writestr(name, content)
    return archive.getvalue()


def cell_files(made: dict[str, Any] | None = None, **more: bytes) -> dict[str, bytes]:
    plain = {"record.json": json.dumps(made or record()).encode(), "samples.csv": SCORES.encode()}
    named = {name.replace("_", "."): content for name, content in more.items()}
    return {f"{HOME}/{name}": content for name, content in {**plain, **named}.items()}


def imported(content: bytes, tmp_path: Path, name: str = "lab.zip") -> tuple[sharing.Merged, Path]:
    """What an import says and where it merged; nothing may appear beside that folder."""
    (tmp_path / name).write_bytes(content)
    beside = set(tmp_path.iterdir())
    into = tmp_path / "into"
    try:
        return sharing.import_records(tmp_path / name, into), into
    finally:
        assert set(tmp_path.iterdir()) - beside <= {into}
        assert not list((into / "cells").glob(".*")), "a left-over"


# --- there and back


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_is_packed_comes_out_whole_and_packs_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    ours = results_of(tmp_path / "ours", record(), record(category="b"), record(method="padim"))
    done = sharing.export_records(tmp_path / name, ours, lab="North")
    assert (done.cells, done.files, done.left_out) == (3, 9, [])
    first = (tmp_path / name).read_bytes()
    os.utime(ours / f"{HOME}/record.json", (0, 0))
    sharing.export_records(tmp_path / name, ours, lab="North")
    assert (tmp_path / name).read_bytes() == first
    merged = sharing.import_records(tmp_path / name, tmp_path / "theirs")
    assert (merged.lab, merged.new, merged.there, merged.conflicting, merged.refused) == (
        "North",
        3,
        0,
        [],
        [],
    )
    before, after = tree(ours), tree(tmp_path / "theirs")
    assert before.keys() == after.keys()
    for path, content in before.items():
        if path.endswith("record.json"):
            assert json.loads(after[path]) == {**json.loads(content), "origin": "North"}
        else:
            assert after[path] == content


def test_twice_is_once_and_what_comes_home_is_known(tmp_path: Path) -> None:
    ours, archive = results_of(tmp_path / "ours"), tmp_path / "a.zip"
    sharing.export_records(archive, ours)
    assert sharing.import_records(archive, tmp_path / "theirs").new == 1
    assert sharing.import_records(archive, tmp_path / "theirs").there == 1
    sharing.export_records(archive, tmp_path / "theirs", lab="South")
    before = tree(ours)
    assert sharing.import_records(archive, ours).there == 1
    assert tree(ours) == before


def test_the_labs_name_is_given_or_the_archives_or_the_files(tmp_path: Path) -> None:
    ours = results_of(tmp_path / "ours")
    sharing.export_records(tmp_path / "north lab#3.tar.gz", ours)
    lab = sharing.import_records(tmp_path / "north lab#3.tar.gz", tmp_path / "a").lab
    assert lab == "north lab-3"
    assert sharing.import_records(tmp_path / "north lab#3.tar.gz", tmp_path / "b", lab="N").lab == "N"
    for wrong in ("", "<b>", "a/b", "x" * 41, " a"):
        with pytest.raises(UsageError, match="a lab's name is"):
            sharing.import_records(tmp_path / "north lab#3.tar.gz", tmp_path / "c", lab=wrong)
    # A record that came from a third lab keeps that lab's name.
    sharing.export_records(tmp_path / "b.zip", tmp_path / "b", lab="M")
    sharing.import_records(tmp_path / "b.zip", tmp_path / "d")
    assert {r["origin"] for r in records.read_all(tmp_path / "d")[0]} == {"N"}


def test_words_choose_and_wrong_ones_are_answered(tmp_path: Path) -> None:
    ours = results_of(
        tmp_path / "ours",
        record(),
        record(method="padim", variant="backbone=x"),
        record(protocol="few_shot-4"),
        record(marks=["debug"], seed=7),
    )
    pack = lambda **select: sharing.export_records(tmp_path / "a.zip", ours, select).cells  # noqa: E731
    assert pack() == 3
    assert pack(method=["padim"]) == pack(method=["padim@backbone=x"]) == pack(protocol=["few_shot"]) == 1
    with pytest.raises(UsageError, match=r"method=padin: no record .* Did you mean padim"):
        pack(method=["padin"])
    with pytest.raises(UsageError, match=r"ends in \.zip or \.tar\.gz"):
        sharing.export_records(tmp_path / "a.rar", ours)
    with pytest.raises(UsageError, match=r"--with map: expected .* Did you mean maps"):
        sharing.export_records(tmp_path / "a.zip", ours, extras=["map"])
    with pytest.raises(UsageError, match="no records to pack"):
        sharing.export_records(tmp_path / "a.zip", tmp_path / "empty")


def test_maps_models_and_pictures_only_on_request(tmp_path: Path) -> None:
    ours = results_of(tmp_path / "ours")
    for name, content in good_extras().items():
        (ours / HOME / name).write_bytes(content)
    pack = lambda *extras: sharing.export_records(tmp_path / "a.zip", ours, extras=extras).files  # noqa: E731
    assert pack() == 3
    assert pack("maps") == pack("models") == 4
    assert pack("maps", "models", "pictures") == 9
    assert sharing.import_records(tmp_path / "a.zip", tmp_path / "in").new == 1
    assert len(tree(tmp_path / "in")) == 9


def test_folders_of_the_machine_stay_here(tmp_path: Path) -> None:
    trace = {"type": "E", "message": "no /home/ann/w.bin", "traceback": 'File "/home/ann/x/y.py", line 1'}
    ours = results_of(tmp_path / "ours", record(status="failed", error=trace))
    config = ours / HOME / "config.yaml"
    config.write_text("weights: /home/ann/w.bin\nfiles:\n- '{c}/ground_truth/*.png'\nurl: https://a.b/c\n")
    sharing.export_records(tmp_path / "a.zip", ours)
    with zipfile.ZipFile(tmp_path / "a.zip") as bundle:
        held = {name.rpartition("/")[2]: bundle.read(name).decode() for name in bundle.namelist()}
    assert "ann" not in held["record.json"]
    assert held["config.yaml"] == config.read_text().replace("/home/ann/", "…/")
    assert sharing.import_records(tmp_path / "a.zip", ours).there == 1


# --- two labs, one cell


def test_both_records_of_a_cell_are_kept_and_shown(tmp_path: Path) -> None:
    ours = results_of(tmp_path / "ours", record(value=0.9), record(category="b", value=0.8))
    theirs = results_of(tmp_path / "theirs", record(value=0.7), record(category="b", value=0.6))
    sharing.export_records(tmp_path / "a.zip", theirs, lab="North")
    before = tree(ours)
    merged = sharing.import_records(tmp_path / "a.zip", ours)
    assert len(merged.conflicting) == 2
    assert merged.new == 0
    assert before.items() <= tree(ours).items(), "ours is untouched"
    found, problems = records.read_all(ours)
    assert (len(found), problems) == (4, [])
    for held in found:  # a record lies where its fingerprint says, as those who look for its files expect
        home = records.CellId("made_up", held["category"], "patchcore", "", "full", 0).folder(ours)
        assert json.loads((home / held["fingerprint"]["cell"] / "record.json").read_text()) == held
    table = collect(ours).tables["made_up"][0]
    rows = {line.variant: line for line in table.lines if line.kind == "ours"}
    assert {name: round(line.average.mean or 0, 3) for name, line in rows.items()} == {
        "": 0.85,
        "origin=North": 0.65,
    }
    assert "record of another lab: North" in rows["origin=North"].remarks
    write_report(ours)
    for name in ("leaderboard.md", "leaderboard.csv", "tables/made_up/table9_image_auroc.tex"):
        assert "origin=North" in (ours / name).read_text()


def test_labs_that_share_the_work_make_one_row_with_a_footnote(tmp_path: Path) -> None:
    ours = results_of(tmp_path / "ours", record(value=0.9))
    sharing.export_records(tmp_path / "a.zip", results_of(tmp_path / "t", record(category="b")), lab="North")
    sharing.import_records(tmp_path / "a.zip", ours)
    (line,) = [line for line in collect(ours).tables["made_up"][0].lines if line.kind == "ours"]
    assert (line.variant, line.complete) == ("", True)
    assert "record of another lab: North [b]" in line.remarks


def test_a_run_of_ours_beside_theirs_is_shown_too(tmp_path: Path) -> None:
    """Theirs came first, ours has another fingerprint and a newer date."""
    ours = tmp_path / "ours"
    sharing.export_records(tmp_path / "a.zip", results_of(tmp_path / "t", record(value=0.7)), lab="North")
    sharing.import_records(tmp_path / "a.zip", ours)
    results_of(ours, record(fingerprint={"cell": "1" * 12}, date="2027-01-01T00:00:00+00:00"))
    assert sorted(p.entry.variant for p in collect(ours).places["made_up"]) == ["", "origin=North"]


# --- archives that mean harm: nothing of them is kept


def zip_with(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    held = io.BytesIO(packed(cell_files()))
    with zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in entries:
            bundle.writestr(name, content)
    return held.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"x") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as bundle:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        bundle.addfile(member, io.BytesIO(content))
    return held.getvalue()


def link(target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(f"{HOME}/config.yaml")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


def changed(name: str, content: bytes) -> bytes:
    """The manifest is of other bytes than the file's."""
    whole = cell_files()
    listed = {n: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in whole.items()}
    manifest = {"kind": "adbench results", "version": 1, "files": listed}
    return packed({**whole, f"{HOME}/{name}": content}, manifest)


HARM: dict[str, tuple[bytes, str]] = {
    "absolute": (zip_with(("/etc/evil", b"x")), "no plain relative path"),
    "upwards": (zip_with(("cells/../../evil", b"x")), "leads out"),
    "windows": (zip_with(("..\\evil", b"x")), "no plain relative path|leads out"),
    "drive": (tar_with("C:/evil"), "no plain relative path"),
    "upwards tar": (tar_with("../evil"), "leads out"),
    "symlink": (zip_with(link("/etc/passwd")), "a link"),
    "symlink inside": (zip_with(link("record.json")), "a link"),
    "symlink tar": (tar_with("a", tarfile.SYMTYPE, "b"), "a link"),
    "hardlink": (tar_with("a", tarfile.LNKTYPE, "b"), "a link"),
    "device": (tar_with("a", tarfile.CHRTYPE), "a device or pipe"),
    "pipe": (tar_with("a", tarfile.FIFOTYPE), "a device or pipe"),
    "unlisted": (zip_with((f"{HOME}/more.txt", b"x")), "not in its manifest"),
    "listed twice": (packed({"cells/a": b"x"}), "no file of a cell"),
    "hidden": (zip_with((f"{HOME}/.profile", b"x")), "not in its manifest"),
    "elsewhere": (packed({**cell_files(), "tables/x.md": b"x"}), "no file of a cell"),
    "no manifest": (zip_with()[:0] + tar_with("cells/a"), "has no manifest.json"),
    "no archive": (b"hello", "has no manifest.json"),
    "empty": (b"", "has no manifest.json"),
    "torn": (packed(cell_files())[:300], "damaged"),
    "torn gzip": (tar_with("a", content=os.urandom(9000))[:4000], "damaged"),
    "another kind": (packed(cell_files(), kind="other"), "another kind"),
    "another version": (packed(cell_files(), version=2), "version 1"),
    "lab": (packed(cell_files(), lab="<script>"), "no lab's name"),
    "files": (packed(cell_files(), files=[1]), "without files"),
    "missing": (packed({}, files={f"{HOME}/record.json": {}}), "is missing"),
    "swapped": (changed("samples.csv", SCORES.encode().replace(b"0.5", b"0.9")), "SHA-256"),
    "longer": (changed("samples.csv", SCORES.encode() * 2), "SHA-256"),
}


@pytest.mark.parametrize(("content", "why"), HARM.values(), ids=HARM.keys())
def test_nothing_of_a_hostile_archive_is_kept(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        imported(content, tmp_path)
    assert tree(tmp_path / "into") == {}


@pytest.mark.parametrize("limits", [{"ratio": 1, "free": 10_000}, {"files": 2}, {"largest": 100_000}])
def test_bombs(limits: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(cell_files(config_yaml=b"a: 1\n" + b"#" * 500_000))
    monkeypatch.setattr(sharing, "LIMITS", sharing.Limits(**{"links": False, **limits}))
    with pytest.raises(DataError, match=r"bomb|of more than"):
        imported(content, tmp_path)
    assert tree(tmp_path / "into") == {}


# --- cells that mean harm: refused one by one, the rest is merged


def changed_record(**changes: Any) -> bytes:
    return json.dumps({**record(), **changes}).encode()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


WRONG_RECORDS: dict[str, tuple[bytes, str]] = {
    "no json": (b"{", "is no JSON"),
    "nan": (json.dumps(record()).replace("0.75", "NaN").encode(), "is no JSON"),
    "infinity": (json.dumps(record()).replace("0.75", "1e999").encode(), "is no JSON"),
    "utf-16": (json.dumps(record()).encode("utf-16"), "is no JSON"),
    "latin-1": (json.dumps(record()).replace("PatchCore", "é").encode("latin-1"), "is no JSON"),
    "surrogate": (json.dumps(record()).replace("PatchCore", "\\ud800").encode(), "is no JSON"),
    "list": (b"[1]", "no JSON object"),
    "schema": (changed_record(schema=2), "has schema 2"),
    "schema true": (changed_record(schema=True), "has schema True"),
    "status": (changed_record(status="<b>"), "has status"),
    "seed": (changed_record(seed="0"), "no whole number as its seed"),
    "huge seed": (changed_record(seed=10**18 * 10), "no whole number|is no JSON|lies elsewhere"),
    "another cell": (changed_record(category="b"), "lies elsewhere"),
    "dots": (changed_record(dataset=".."), "lies elsewhere"),
    "absolute": (changed_record(dataset="/etc"), "lies elsewhere"),
    "long name": (changed_record(title="x" * 300), "title of 300 characters"),
    "long text": (changed_record(reason="x" * 30_000), "a text of 30,000 characters"),
    "fingerprint": (changed_record(fingerprint={"cell": "../../x"}), "has the fingerprint"),
    "no fingerprint": (changed_record(fingerprint=[]), "has no fingerprint"),
    "origin": (changed_record(origin="<i>"), "from a lab called"),
    "date": (changed_record(date="tomorrow"), "has the date 'tomorrow'"),
    "metrics list": (changed_record(metrics=[0.9]), "no object as its metrics"),
    "metric text": (changed_record(metrics={"image": {"image_auroc": "<img>"}}), "for a number in metrics"),
    "metric flag": (changed_record(metrics={"image": {"image_auroc": True}}), "for a number in metrics"),
    "no metrics": (changed_record(metrics=None), "done without metrics"),
    "interval": (changed_record(intervals={"image": {"image_auroc": [1, 2]}}), "no object as its intervals"),
    "timing": (changed_record(timing={"fit_seconds": "fast"}), "for a number in timing"),
    "marks": (changed_record(marks="all"), "no list of texts as its marks"),
    "marks inside": (changed_record(marks=[{}]), "no list of texts as its marks"),
    "weights": (changed_record(weights=["a"]), "no list of objects as its weights"),
    "best": (changed_record(best_on_test={"tested": {}}), "tested epochs"),
    "paper": (changed_record(paper={"selection": {}}), "more than texts and numbers in paper"),
    "deep": (changed_record(notes={"a": nested(40)}), "nested deeper"),
    "very deep": (b'{"a":' * 2000 + b"1" + b"}" * 2000, "is no JSON"),
    "many": (changed_record(notes={"a": [0] * 250_000}), "more than 200,000 values"),
    "large": (changed_record(notes={"a": ["x" * 19_000] * 300}), "larger than"),
}


@pytest.mark.parametrize(("content", "why"), WRONG_RECORDS.values(), ids=WRONG_RECORDS.keys())
def test_what_is_no_record_is_refused_and_the_rest_is_merged(
    content: bytes, why: str, tmp_path: Path
) -> None:
    good = {n.replace("/a/", "/b/"): b for n, b in cell_files(record(category="b")).items()}
    merged, into = imported(packed({**cell_files(), f"{HOME}/record.json": content, **good}), tmp_path)
    assert merged.new == 1
    assert len(merged.refused) == 1
    assert why.split("|")[0] in merged.refused[0] or any(part in merged.refused[0] for part in why.split("|"))
    assert {name.split("/")[2] for name in tree(into)} == {"b"}
    collect(into)


def png(mode: str, size: tuple[int, int] = (32, 16), colours: int = 256) -> bytes:
    image = Image.frombytes("P", size, bytes(i % 256 for i in range(size[0] * size[1])))
    image.putpalette([grey for grey in range(colours) for _ in "rgb"])
    held = io.BytesIO()
    (image if mode == "P" else Image.new(mode, size)).save(held, "PNG")
    return held.getvalue()


def jpg(size: tuple[int, int] = (32, 16)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size).save(held, "JPEG")
    return held.getvalue()


def pictures(**changes: Any) -> bytes:
    image = {
        "name": "x/0.png",
        "defect": "x",
        "label": 1,
        "score": 0.5,
        "width": 16,
        "height": 9,
        "why": ["best"],
    }
    facts = {
        "tile": 16,
        "images": [image, {**image, "label": 0}],
        "levels": [i / 9 for i in range(256)],
        "quantiles": {"at": [0, 1], "values": [0.0, 2.0], "pixels": 9},
    }
    return json.dumps({**facts, **changes}).encode()


def npz(**arrays: Any) -> bytes:
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()


def safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"bank": np.zeros((2, 3), np.float32)})


def good_extras() -> dict[str, bytes]:
    return {
        "pictures.json": pictures(),
        "inputs.jpg": jpg(),
        "truth.png": png("1"),
        "maps.png": png("P"),
        "maps.npz": npz(**{"a/test/good/0.png": np.zeros((2, 3), np.float16)}),
        "model.safetensors": safetensors(),
    }


def lying_npy() -> bytes:
    """A head that promises far more than follows."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as bundle:
        bundle.writestr("a.npy", array.getvalue())
    return held.getvalue()


WRONG_FILES: dict[str, tuple[str, bytes, str]] = {
    "unknown name": ("setup.py", b"import os", "no file of a cell"),
    "hidden": (".bashrc", b"", "no file of a cell"),
    "header": ("samples.csv", b"a,b\n", "begins with"),
    "label": ("samples.csv", SCORES.replace(",0,", ",2,").encode(), "label '2'"),
    "score": ("samples.csv", SCORES.replace("0.5", "nan").encode(), "score 'nan'"),
    "no score": ("samples.csv", SCORES.replace("0.5", "high").encode(), "no table of scores"),
    "path": ("samples.csv", SCORES.replace("a/test", "../test").encode(), "no plain relative path"),
    "bytes": ("samples.csv", SCORES.encode() + b"\xff", "not UTF-8"),
    "nul": ("samples.csv", SCORES.encode() + b"\0\n", "fields|no table"),
    "python tag": ("config.yaml", b"a: !!python/object/apply:os.system ['true']\n", "has tag"),
    "own tag": ("config.yaml", b"a: !x 1\n", "has tag"),
    "laughs": ("config.yaml", b"a: &a [1, 2]\nb: [*a, *a]\n", "holds an alias"),
    "deep yaml": ("config.yaml", b"a: " + b"[" * 5000 + b"]" * 5000, "nested deeper|no YAML"),
    "no yaml": ("config.yaml", b"a: [", "no YAML"),
    "no mapping": ("config.yaml", b"- 1\n", "no settings"),
    "binary yaml": ("config.yaml", b"\xff\xfe\x00", "no YAML"),
    "curves": ("curves.json", b'{"full": {"roc": {"x": [0, 1], "y": [0]}}}', "differ in length"),
    "curve text": ("curves.json", b'{"full": {"roc": {"x": ["<b>"], "y": [0]}}}', "no numbers"),
    "tile": ("pictures.json", pictures(tile=100_000), "no tile"),
    "levels": ("pictures.json", pictures(levels=[3, 1]), "256 rising levels"),
    "quantiles": ("pictures.json", pictures(quantiles={"at": [0], "values": [], "pixels": 1}), "quantiles"),
    "images": ("pictures.json", pictures(images=[{"name": 1}]), "as its name"),
    "size": ("inputs.jpg", jpg((3000, 16)), "of (3000, 16) pixels"),
    "svg": ("inputs.jpg", b"<svg onload='alert(1)'/>", "no whole JPEG"),
    "png as jpg": ("inputs.jpg", png("1"), "no whole JPEG"),
    "cut jpg": ("inputs.jpg", jpg()[:400], "no whole JPEG"),
    "mode": ("truth.png", png("L"), "of mode L"),
    "palette": ("maps.png", png("P", colours=7), "a colour for each level"),
    "cut png": ("maps.png", png("P")[:900], "no whole PNG"),
    "pickle": ("maps.npz", npz(a=np.array([{}], object)), "holds an array"),
    "lying array": ("maps.npz", lying_npy(), "another size than it says"),
    "whole numbers": ("maps.npz", npz(a=np.zeros((2, 2), int)), "holds an array"),
    "climbing name": ("maps.npz", npz(**{"../../a": np.zeros((2, 2))}), "holds '../../a.npy'"),
    "no npz": ("maps.npz", b"\x80\x04K.", "no archive of arrays"),
    "torch file": ("model.safetensors", zip_with(), "no safetensors"),
    "pickled model": ("model.safetensors", b"\x80\x04\x95", "no safetensors"),
    "long head": ("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "no safetensors"),
}


@pytest.mark.parametrize(("name", "content", "why"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_a_cell_with_one_wrong_file_is_refused(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    files = {
        **cell_files(),
        **{f"{HOME}/{n}": b for n, b in good_extras().items()},
        f"{HOME}/{name}": content,
    }
    merged, into = imported(packed(files), tmp_path)
    assert (merged.new, len(merged.refused)) == (0, 1)
    assert any(part in merged.refused[0] for part in why.split("|")), merged.refused
    assert tree(into) == {}


def test_strips_need_their_facts(tmp_path: Path) -> None:
    merged, _ = imported(packed(cell_files(inputs_jpg=jpg())), tmp_path)
    assert "no pictures.json beside it" in merged.refused[0]


def test_strings_are_kept_as_data_and_never_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert(1)</script>\x1b[31m\r\n$(touch x)\\input{/etc/passwd}"
    made = record(category="a\x1b[2Jb", title=evil)
    place = records.CellId("made_up", made["category"], "patchcore", "", "full", 0).folder(Path())
    files = {f"{place.as_posix()}/{FP}/record.json": json.dumps(made).encode()}
    (tmp_path / "a.zip").write_bytes(packed(files))
    code = cli.main(["results", "import", str(tmp_path / "a.zip"), f"paths.results={tmp_path / 'in'}"])
    assert code == 0
    assert records.read_all(tmp_path / "in")[0][0]["title"] == evil
    write_report(tmp_path / "in")
    assert "\x1b" not in capsys.readouterr().out
    for path in (tmp_path / "in").rglob("*.md"):
        assert "<script>" not in path.read_text()


# --- breaking off


def test_an_interrupted_import_leaves_whole_cells_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = results_of(tmp_path / "ours", *(record(category=name) for name in "abc"))
    sharing.export_records(tmp_path / "a.zip", ours)
    written: list[Path] = []

    def stop(path: Path, content: Any, real: Callable[..., None] = records.write_json) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            sharing.import_records(tmp_path / "a.zip", tmp_path / "in")
    assert sorted(tree(tmp_path / "in")) == [
        f"{HOME}/{name}" for name in ("config.yaml", "record.json", "samples.csv")
    ]
    assert not list((tmp_path / "in" / "cells").glob(".*"))
    merged = sharing.import_records(tmp_path / "a.zip", tmp_path / "in")
    assert (merged.new, merged.there) == (2, 1)


def test_a_full_disk_and_a_broken_export_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = results_of(tmp_path / "ours")
    sharing.export_records(tmp_path / "a.zip", ours)
    before = (tmp_path / "a.zip").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sharing, "_write_zip", full)
        with pytest.raises(ResultsError, match=r"cannot write .*a\.zip: No space left"):
            sharing.export_records(tmp_path / "a.zip", ours)
        assert (tmp_path / "a.zip").read_bytes() == before
        patch.setattr(records, "write_json", full)
        with pytest.raises(ResultsError, match="No space left"):
            sharing.import_records(tmp_path / "a.zip", tmp_path / "in")
    assert tree(tmp_path / "in") == {}


# --- the command


def test_the_command_counts_and_says_what_was_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, archive = results_of(tmp_path / "ours"), str(tmp_path / "a.tar.gz")
    assert cli.main(["results", "export", archive, f"paths.results={ours}", "method=patchcore"]) == 0
    assert "1 records, 3 files" in capsys.readouterr().out
    assert cli.main(["results", "import", archive, f"paths.results={tmp_path / 'in'}", "--as", "N"]) == 0
    assert "records of N: 1 new, 0 already there, 0 conflicting, 0 refused" in capsys.readouterr().out
    (tmp_path / "b.zip").write_bytes(packed({**cell_files(), f"{HOME}/config.yaml": b"["}))
    assert cli.main(["results", "import", str(tmp_path / "b.zip"), f"paths.results={ours}"]) == 1
    assert f"refused: {HOME}: config.yaml is no YAML" in capsys.readouterr().out
    for words in (
        ["results"],
        ["results", "export"],
        ["results", "merge", "a"],
        ["results", "import", "none"],
    ):
        assert cli.main(words) == 2
    assert cli.main(["results", "import", archive, "--with", "maps"]) == 2


def test_every_committed_record_passes(tmp_path: Path) -> None:
    committed = Path(__file__).resolve().parents[1] / "results"
    done = sharing.export_records(tmp_path / "a.zip", committed)
    assert done.left_out == []
    merged = sharing.import_records(tmp_path / "a.zip", tmp_path / "in")
    assert (merged.new, merged.refused) == (done.cells, [])
    assert set(foreign.FILES) >= {Path(name).name for name in tree(tmp_path / "in")} - {"record.json"}
