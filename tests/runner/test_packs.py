"""What sweeps cost, their order, and packs of them on disk."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ad_bench import config
from ad_bench.errors import UsageError
from ad_bench.runner import packs
from ad_bench.runner.plan import Fit, make_plan
from tests.report.made_records import record, write


def fit(dataset: str = "d", group: str = "a", geometry: str = "g", weights: str = "w") -> Any:
    ident = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        cells=[SimpleNamespace(id=ident)],
        geometry=geometry,
        weights=(SimpleNamespace(path=weights, name="n"),),
        group=SimpleNamespace(name=group),
    )


def test_warm_keeps_kinds_together_and_groups_within_them() -> None:
    fits = [fit("d", "a"), fit("e", "a"), fit("d", "b"), fit("d", "a"), fit("d", "a", "other"), fit("e", "a")]
    places = {id(one): place for place, one in enumerate(fits)}
    assert [places[id(one)] for one in packs.warm(fits)] == [0, 3, 2, 1, 5, 4]


def test_packs_hold_neighbours_up_to_their_seconds() -> None:
    fits = [fit(group=str(n)) for n in range(7)]
    made = packs.packed(fits, [30.0] * 6 + [500.0], 100.0, None)
    assert [len(pack.fits) for pack in made] == [3, 3, 1]
    assert [pack.seconds for pack in made] == [90.0, 90.0, 500.0]
    assert [len(pack.fits) for pack in packs.packed(fits, [None] * 7, 100.0, None)] == [1] * 7
    few = packs.packed(fits, [30.0] * 7, 30.0, 2)
    assert len(few) <= 2
    assert sum(len(pack.fits) for pack in few) == 7


def test_a_half_full_pack_ends_with_its_kind() -> None:
    fits = [fit("d"), fit("d"), fit("e"), fit("f")]
    assert [len(p.fits) for p in packs.packed(fits, [30.0] * 4, 100.0, None)] == [2, 2]
    assert [len(p.fits) for p in packs.packed(fits, [20.0] * 4, 100.0, None)] == [3, 1]


@pytest.fixture
def plan_of(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def plan(*words: str) -> list[Fit]:
        return make_plan(config.choices(["dataset=mvtec", *words], [], True)).fits

    return plan


def test_what_a_fit_takes_is_what_earlier_records_took(plan_of: Any, tmp_path: Path) -> None:
    fits = plan_of("method=random,mean_image,padim", "backbone=bundled")
    results = tmp_path / "results"
    assert packs.seconds_of(fits, results) == [None] * 6
    times = {"fit_seconds": 20.0, "predict_seconds": 6.0, "evaluate_seconds": 4.0}
    counts = {"train": 10, "test_normal": 2, "test_anomalous": 3}
    write(results, record(dataset="mvtec", category="zipper", method="random", timing=times, counts=counts))
    write(results, record(dataset="other", category="x", method="mean_image", timing=times, counts=counts))
    write(results, record(dataset="other", category="x", method="padim_bis", timing=times, counts=counts))
    # 6 training images at 2 s, 6 test images at 2 s
    assert packs.seconds_of(fits, results) == [24.0, 24.0, 24.0, 24.0, None, None]
    own = [None if rate is None else rate.own for rate in packs.rates_of(fits, results)]
    assert own == [True, True, True, True, None, None]
    slow = {**times, "fit_seconds": 200.0}
    write(
        results, record(dataset="mvtec", category="zipper", method="mean_image", timing=slow, counts=counts)
    )
    write(results, record(dataset="mvtec", category="pill", method="mean_image", status="failed"))
    write(
        results,
        record(dataset="mvtec", category="grid", method="padim", timing=slow, counts=counts, marks=["debug"]),
    )
    assert packs.seconds_of(fits, results) == [24.0, 24.0, 132.0, 132.0, None, None]


def test_other_settings_of_a_method_say_so(plan_of: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    counts = {"train": 10, "test_normal": 2, "test_anomalous": 3}
    write(results, record(dataset="mvtec", method="random", variant="other=1", counts=counts))
    (rate, *_) = packs.rates_of(plan_of("method=random"), results)
    assert rate is not None
    assert not rate.own


def test_a_pack_on_disk_is_planned_again(
    plan_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = plan_of("method=random,mean_image", "seed=0,1", "category=bottle,cable")
    wanted = [fits[0], fits[3], fits[6]]
    path = tmp_path / "results" / "pack.json"
    packs.write_pack(path, packs.Pack(tuple(wanted), 12.0), [])
    monkeypatch.chdir("/")  # a job may begin anywhere
    plan = packs.read_pack(path)
    assert Path.cwd() == tmp_path
    assert [str(c.id) for f in plan.fits for c in f.waiting] == [str(c.id) for f in wanted for c in f.waiting]
    assert [c.fingerprint for c in plan.cells] == [c.fingerprint for f in wanted for c in f.cells]
    content = json.loads(path.read_text())
    assert content["seconds"] == 12.0
    write_record(tmp_path, wanted[0], "2020-01-01T00:00:00+00:00")
    assert [len(f.waiting) for f in packs.read_pack(path).fits] == [0, 1, 1]


def test_a_fit_of_several_cells_stays_whole(plan_of: Any, tmp_path: Path) -> None:
    together = plan_of("method=random", "protocol=unified", "seed=0,1")
    path = tmp_path / "results" / "pack.json"
    packs.write_pack(path, packs.Pack((together[1],), 0.0), [])
    content = json.loads(path.read_text())
    assert content["entries"][0]["cells"] == [["bottle", 1], ["cable", 1]]
    content["entries"][0]["cells"] = [["cable", 1]]
    path.write_text(json.dumps(content))
    (fit,) = packs.read_pack(path).fits
    assert [(cell.id.category, cell.id.seed) for cell in fit.waiting] == [("bottle", 1), ("cable", 1)]
    assert [cell.fingerprint for cell in fit.cells] == [cell.fingerprint for cell in together[1].cells]


def write_record(tmp_path: Path, of: Fit, date: str) -> None:
    cell = of.cells[0]
    folder = cell.id.folder(tmp_path / "results") / cell.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps({"schema": 1, "status": "done", "date": date}))


def test_a_job_that_is_queued_again_does_not_run_again_what_it_ran(plan_of: Any, tmp_path: Path) -> None:
    fits = plan_of("method=random", "rerun=always", "category=bottle,cable")
    path = tmp_path / "results" / "pack.json"
    packs.write_pack(path, packs.Pack(tuple(fits), 0.0), [])
    write_record(tmp_path, fits[0], "2020-01-01T00:00:00+00:00")  # of an earlier sweep
    write_record(tmp_path, fits[1], "2999-01-01T00:00:00+00:00")
    assert [len(f.waiting) for f in packs.read_pack(path).fits] == [1, 0]


def test_what_is_no_pack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # and back
    for text in ("", "{}", '{"submitted": "x", "folder": "/", "config_dirs": 3, "entries": []}'):
        (tmp_path / "pack.json").write_text(text)
        with pytest.raises(UsageError, match=r"pack\.json is no pack"):
            packs.read_pack(tmp_path / "pack.json")
