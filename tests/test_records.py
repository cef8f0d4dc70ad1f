from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ad_bench import records
from ad_bench.errors import ResultsError
from ad_bench.processes import DAY, machine
from ad_bench.records import CellId

CELL = CellId("mtd", "mtd", "patchcore", "coreset_ratio=0.01", "full", 0)


def put(results: Path, fingerprint: str = "abc", replace: bool = False, **facts: object) -> None:
    with records.writing(results, CELL, fingerprint, replace) as folder:
        records.write_json(folder / "record.json", {"schema": records.SCHEMA, "status": "done", **facts})


def test_a_record_is_found_where_it_was_written(tmp_path: Path) -> None:
    assert records.find(tmp_path, CELL, "abc") is None
    put(tmp_path, value=0.1 + 0.2)
    path = tmp_path / "cells/mtd/mtd/patchcore@coreset_ratio=0.01/full-seed0/abc/record.json"
    assert json.loads(path.read_text())["value"] == 0.30000000000000004  # not rounded
    found = records.find(tmp_path, CELL, "abc")
    assert found is not None
    assert records.read_all(tmp_path) == ([found], [])


def test_nan_is_null_in_standard_json(tmp_path: Path) -> None:
    put(tmp_path, metrics={"a": float("nan"), "b": [float("inf"), 1.0]})
    found = records.find(tmp_path, CELL, "abc")
    assert found is not None
    assert found["metrics"] == {"a": None, "b": [None, 1.0]}


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with records.writing(tmp_path, CELL, "abc") as folder:
            (folder / "record.json").write_text("{")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_first_of_two_writers_stays_unless_replacing(tmp_path: Path) -> None:
    put(tmp_path, who="first")
    put(tmp_path, who="second")
    assert records.find(tmp_path, CELL, "abc")["who"] == "first"  # type: ignore[index]
    put(tmp_path, who="third", replace=True)
    assert records.find(tmp_path, CELL, "abc")["who"] == "third"  # type: ignore[index]
    assert not list((tmp_path / "cells").glob(".*"))


def test_a_full_disk_is_said_and_earlier_records_stay(tmp_path: Path) -> None:
    put(tmp_path, "before")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from ad_bench import records\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"cell = records.{CELL!r}\n"
        f"with records.writing(Path({str(tmp_path)!r}), cell, 'after') as folder:\n"
        "    records.write_json(folder / 'record.json', {'text': 'x' * 5000})\n"
    )
    root = Path(__file__).resolve().parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert answer.returncode == 1
    assert "ResultsError: cannot write the record of mtd/mtd" in answer.stderr
    assert "Earlier ones are intact" in answer.stderr
    assert records.find(tmp_path, CELL, "before") is not None
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["record.json"]


def test_a_results_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("a file where the folder should be")
    with pytest.raises(ResultsError, match="cannot write the record"):
        put(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', ""])
def test_a_broken_record_is_named_and_the_others_are_read(tmp_path: Path, text: str) -> None:
    put(tmp_path)
    broken = CELL.folder(tmp_path) / "broken"
    broken.mkdir()
    (broken / "record.json").write_text(text)
    found, problems = records.read_all(tmp_path)
    assert len(found) == 1
    assert len(problems) == 1
    assert str(broken / "record.json") in problems[0]
    assert records.find(tmp_path, CELL, "broken") is None  # the cell would run again


def test_leftovers_of_dead_processes_go_those_of_living_ones_stay(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = machine()
    gone = [f".tmp-{here}-{dead.pid}-aa", f".old-{here}-{dead.pid}-aa12", ".tmp-elsewhere~01234567-1-dd"]
    stay = [f".tmp-{here}-{os.getpid()}-bb", ".tmp-elsewhere~01234567-1-cc", f".tmp-host-{dead.pid}-ee"]
    for name in (*gone, *stay):
        (cells / name).mkdir(parents=True)
    past = time.time() - 1.1 * DAY
    os.utime(cells / gone[2], (past, past))
    assert records.sweep_leftovers(tmp_path) == 3
    assert sorted(p.name for p in cells.iterdir()) == sorted(stay)


class LostReply:
    """NFS: the server has renamed, its answer was lost, and the request that is sent again finds nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, undo: bool = False) -> None:
        real = Path.replace
        self.lost = 0

        def replace(path: Path, target: Path) -> Path:
            if undo:  # nothing was renamed: somebody removed the source
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            else:
                real(path, target)
            self.lost += 1
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

        monkeypatch.setattr(Path, "replace", replace)


def test_a_rename_whose_answer_was_lost_has_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nfs = LostReply(monkeypatch)
    put(tmp_path, who="me")
    records.replace_text(tmp_path / "table.csv", "a,b")
    assert nfs.lost == 2
    assert records.find(tmp_path, CELL, "abc")["who"] == "me"  # type: ignore[index]
    assert (tmp_path / "table.csv").read_text() == "a,b"
    assert not list((tmp_path / "cells").glob(".*"))


def test_a_rename_that_did_not_happen_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "before", who="first")
    (tmp_path / "table.csv").write_text("before")
    LostReply(monkeypatch, undo=True)
    with pytest.raises(ResultsError, match="cannot write the record"):
        put(tmp_path)
    with pytest.raises(ResultsError, match="cannot write the record"):
        put(tmp_path, "before", who="second", replace=True)  # another's record in its place is no proof
    with pytest.raises(FileNotFoundError):
        records.replace_text(tmp_path / "table.csv", "after")
    assert (tmp_path / "table.csv").read_text() == "before"
    assert records.find(tmp_path, CELL, "before")["who"] == "first"  # type: ignore[index]


def test_an_aside_whose_answer_was_lost_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, who="first")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        real(path, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "rename", rename)
    put(tmp_path, who="second", replace=True)
    assert records.find(tmp_path, CELL, "abc")["who"] == "second"  # type: ignore[index]
    assert not list((tmp_path / "cells").glob(".*"))


@pytest.mark.parametrize(("code", "found"), [(errno.ESTALE, True), (errno.EIO, False)])
def test_a_stale_handle_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, found: bool
) -> None:
    put(tmp_path)
    real, tried = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        tried.append(path)
        if len(tried) == 1:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert (records.find(tmp_path, CELL, "abc") is not None) is found


def test_path_names_are_portable_and_distinct() -> None:
    assert records.path_name("backbone=resnet18,coreset_ratio=0.01") == "backbone=resnet18,coreset_ratio=0.01"
    odd = [records.path_name(name) for name in ("a/b", "a b", "a:b", "../x", "x" * 300, "x" * 301)]
    assert len(set(odd)) == len(odd)
    for name in odd:
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 130


def test_a_text_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    records.replace_text(path, "one")
    records.replace_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]

    def broken(_: Path) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        records.replace_file(path, broken)
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_reading_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    import gc

    no_collecting = records.no_collecting

    with no_collecting():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collecting():
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "content", [b"{" * 3000, b'{"a":' * 3000, b'{"schema": 1, "x": NaN}', b"\xff", b'{"x": 1e999}', b""]
)
def test_what_is_no_json_is_a_problem_and_no_end(content: bytes, tmp_path: Path) -> None:
    home = tmp_path / "cells" / "d" / "c" / "m" / "full-seed0"
    for name, text in (("1", content), ("2", b'{"schema": 1}'), (".3", b'{"schema": 1}')):
        (home / name).mkdir(parents=True)
        (home / name / "record.json").write_bytes(text)
    (home / "no folder").write_text("")
    (home / "empty").mkdir()
    found, problems = records.read_all(tmp_path)
    assert found == [{"schema": 1}]
    assert len(problems) == 1
    assert "is no JSON" in problems[0]
