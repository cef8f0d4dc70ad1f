"""Many writers on one results folder: nothing lost, nothing torn, nothing doubled."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ad_bench.records import read_all

ROOT = Path(__file__).resolve().parents[1]
PROCESSES, EACH, COMMON = 16, 125, 10

WRITER = """
import sys
from pathlib import Path
from ad_bench.records import CellId, write_json, writing

results, number, each, common = Path(sys.argv[1]), *map(int, sys.argv[2:])
sys.stdin.readline()  # all begin at once
for index in range(-common, each):
    own = index >= 0
    cell = CellId("d", f"c{index % 5}", "m", "", "full", number * each + index if own else 10**6 - index)
    with writing(results, cell, "f" * 12, replace=index % 2 == 0) as folder:
        (folder / "samples.csv").write_text(f"{number}\\n" * 50)
        write_json(folder / "record.json", {"schema": 1, "status": "done", "seed": cell.seed, "by": number,
                                            "text": "x" * 2000})
"""


def test_sixteen_processes_write_two_thousand_records(tmp_path: Path) -> None:
    results = tmp_path / "results"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(results), str(number), str(EACH), str(COMMON)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        for number in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    read_while_writing = 0
    while any(writer.poll() is None for writer in writers):
        found, problems = read_all(results)
        assert problems == []  # a reader never sees half of one
        read_while_writing = max(read_while_writing, len(found))
        time.sleep(0.05)
    for writer in writers:
        _, text = writer.communicate()
        assert writer.returncode == 0, text
    found, problems = read_all(results)
    assert problems == []
    own = {(r["seed"], r["by"]) for r in found if len(r["text"]) == 2000}
    assert len(own) == len(found) == PROCESSES * EACH + COMMON
    for path in results.rglob("samples.csv"):  # all of a folder is of one writer
        by = path.read_text().split()
        assert len(set(by)) == 1
        assert f'"by": {by[0]}' in (path.parent / "record.json").read_text()
    assert not list((results / "cells").glob(".*"))
    assert read_while_writing > 0
