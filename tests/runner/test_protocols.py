"""Protocols from the words of a command to the records: what methods meet, what is skipped, what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_bench import config
from ad_bench.errors import UsageError
from ad_bench.records import Record, read_all
from ad_bench.runner.plan import Plan, make_plan
from tests.runner.conftest import write_category

WITNESS = '''"""Methods that leave in the record what they were shown."""
import torch

from ad_bench.contract import Method, Prediction


class Witness(Method):
    """Distance of the brightness from that of the training images: of the last fit, or of all of them."""

    def __init__(self, keeps: bool):
        super().__init__()
        self.keeps = keeps
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def fit(self, train, run):
        assert self.training
        if not self.keeps:
            self.total.zero_(), self.count.zero_()
        batches = list(train.batches())
        for batch in batches:
            self.total += batch.images.sum()
            self.count += batch.images.numel()
        labels = [int(label) for batch in batches if batch.labels is not None for label in batch.labels]
        masked = [bool(one) for batch in batches if batch.masked is not None for one in batch.masked]
        run.note(images=len(train), anomalies=sum(labels), masked=sum(masked), size=list(train.size))
        run.note(brightness=float(self.total / self.count.clamp(min=1)))
        if train.support is not None:
            run.note(supporting=len(train.support))

    def predict(self, inputs):
        assert not self.training
        maps = (inputs.images.mean(1) - self.total / self.count.clamp(min=1)).abs()
        return Prediction(maps.amax((1, 2)), maps)
'''
METHODS = {
    "plain": ("[]", "false", "true"),
    "keeper": ("[]", "true", "true"),
    "taught": ("[labels, masks]", "false", "true"),
    "few": ("[support]", "false", "true"),
    "free": ("[]", "false", "false"),
}
Run = Callable[..., dict[str, Record]]


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: what a method needs is all that tells these apart."""
    folder = tmp_path / "mine"
    (folder / "method").mkdir(parents=True)
    (folder / "witnesses.py").write_text(WITNESS)
    for ident, (needs, keeps, trains) in METHODS.items():
        (folder / "method" / f"{ident}.yaml").write_text(
            f"title: {ident}\ntaxonomy: baseline\nsource: ours\nneeds: {needs}\ntrains: {trains}\n"
            f"model: {{_target_: witnesses.Witness, keeps: {keeps}}}\ninput: {{size: 48}}\n"
            "paper_eval: {size: 48, mask_interpolation: nearest, mask_rule: nearest}\n"
            "loader: {batch_size: 4}\n"
        )
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def planned(tmp_path: Path, data: Path, methods: Path) -> Callable[..., Plan]:
    """planned("protocol=noisy") -> the plan of these words for the tiny MVTec AD of the fixtures."""

    def make(*words: str) -> Plan:
        places = [f"paths.{key}={tmp_path / key}" for key in ("data", "results", "cache")]
        fixed = ["dataset=mvtec", "runtime.device=cpu", "runtime.latency_repeats=1", "runtime.workers=1"]
        return make_plan(config.choices([*fixed, *places, *words], [methods]))

    return make


@pytest.fixture
def run(tmp_path: Path, planned: Callable[..., Plan]) -> Run:
    """run("method=plain", ...) -> the records of that plan by category."""
    from ad_bench.runner.sweep import run_plan

    def call(*words: str, failed: int = 0) -> dict[str, Record]:
        plan = planned(*words)
        assert run_plan(plan) == failed
        found, problems = read_all(tmp_path / "results")
        assert problems == []
        wanted = {(cell.id.method, cell.fingerprint) for cell in plan.cells}
        return {r["category"]: r for r in found if (r["method"], r["fingerprint"]["cell"]) in wanted}

    return call


def metrics(record: Record) -> dict[str, Any]:
    """The values, as the record has them."""
    return dict(record["metrics"])


def test_noisy_anomalies_cannot_be_told_and_the_record_names_them(run: Run) -> None:
    found = run("method=taught", "protocol=noisy", "protocol.ratio=0.4", "category=bottle")["bottle"]
    notes = found["notes"]
    assert (notes["images"], notes["anomalies"], notes["masked"]) == (8, 0, 8)  # 6 normal, int(2.4) more
    assert (notes["ratio"], notes["realised_ratio"]) == (0.4, 2 / 6)
    assert len(notes["injected"]) == 2
    assert found["protocol"] == "noisy-0.4"
    assert found["counts"] == {"train": 8, "test_normal": 3, "test_anomalous": 1}
    both = run("method=taught", "protocol=noisy", "protocol.ratio=0.4", "protocol.overlap=true")["bottle"]
    assert both["counts"] == {"train": 8, "test_normal": 3, "test_anomalous": 3}
    assert both["fingerprint"]["fit"] == found["fingerprint"]["fit"]
    assert both["fingerprint"]["evaluation"] != found["fingerprint"]["evaluation"]


def test_labelled_anomalies_reach_only_methods_that_see_labels(run: Run) -> None:
    words = ("protocol=supervised", "protocol.anomalies=2", "category=bottle")
    taught = run("method=taught", *words)["bottle"]
    assert (taught["notes"]["images"], taught["notes"]["anomalies"], taught["notes"]["masked"]) == (8, 2, 8)
    assert taught["counts"]["test_anomalous"] == 1
    plain = run("method=plain", *words)["bottle"]
    assert plain["status"] == "skipped"
    assert plain["reason"] == (
        "plain sees no labels (its `needs` names neither labels nor masks): the 2 labelled anomalies of "
        "protocol=supervised would train as if they were normal. Use protocol=full, or protocol=noisy to "
        "measure just that"
    )
    assert run("method=free", *words)["bottle"]["status"] == "done"  # it trains on nothing


def test_zero_shot_is_for_methods_that_need_no_training(run: Run) -> None:
    free = run("method=free", "protocol=zero_shot")
    assert {category: record["status"] for category, record in free.items()} == {
        "bottle": "done",
        "cable": "done",
    }
    assert free["bottle"]["counts"] == {"train": 0, "test_normal": 3, "test_anomalous": 3}
    assert (free["bottle"]["notes"]["images"], free["bottle"]["notes"]["size"]) == (0, [48, 48])
    plain = run("method=plain", "protocol=zero_shot")["cable"]
    assert plain["reason"] == (
        "plain must be trained, and protocol=zero_shot has no training images: use protocol=full or few_shot "
        "(a method that needs none says `trains: false` in its YAML)"
    )
    random = run("method=random", "protocol=zero_shot", "category=bottle")["bottle"]
    assert metrics(random) == metrics(run("method=random", "category=bottle")["bottle"])


def test_leave_one_out_reads_the_others_and_scores_the_asked(run: Run) -> None:
    words = ("method=few", "protocol=leave_one_out", "protocol.shots=3", "category=bottle")
    found = run(*words)
    assert set(found) == {"bottle"}
    notes = found["bottle"]["notes"]
    assert (notes["images"], notes["supporting"], notes["trained_on"]) == (6, 3, ["cable"])
    assert all(name.startswith("bottle/train/") for name in notes["support"])
    more = run(*words, "protocol.augment=[turns]")["bottle"]
    assert (more["notes"]["images"], more["notes"]["supporting"]) == (6, 12)  # copies of the support alone
    assert run("method=few", "category=bottle")["bottle"]["reason"] == (
        "few needs a support, a few known images of the tested category, and protocol=full has none: use "
        "protocol=leave_one_out or few_shot"
    )


def test_copies_of_a_few_shots_train_and_are_told_apart(run: Run, planned: Callable[..., Plan]) -> None:
    words = ("method=plain", "protocol=few_shot", "protocol.shots=2", "category=bottle")
    plain, more = run(*words)["bottle"], run(*words, "protocol.augment=[flips,grey]")["bottle"]
    assert (plain["notes"]["images"], more["notes"]["images"]) == (2, 10)
    assert more["notes"]["augment"] == ["flips", "grey"]
    assert more["counts"] == plain["counts"]  # images of the data set
    assert more["protocol"] == "few_shot-2-augment=flips+grey"
    assert more["fingerprint"]["fit"] != plain["fingerprint"]["fit"]
    with pytest.raises(UsageError, match=r"protocol\.augment has no 'rotation'\. Did you mean rotations"):
        planned(*words, "protocol.augment=[rotation]")


def test_a_fit_without_copies_is_hashed_as_ever(planned: Callable[..., Plan]) -> None:
    from ad_bench.runner.fingerprint import Fingerprints

    for protocol in ("full", "few_shot", "unified"):
        fit = planned("method=plain", f"protocol={protocol}").fits[0]
        expected = Fingerprints().fit(fit.config, fit.group, 0, fit.geometry, [])
        assert {cell.fit_hash for cell in fit.cells} == {expected}


def test_continual_scores_every_task_after_every_later_one(run: Run, data: Path) -> None:
    for path in (data / "cable" / "train" / "good").iterdir():  # as bright as bottle's defects
        Image.new("RGB", (48, 48), (250, 250, 250)).save(path)
    found = run("method=plain", "protocol=continual")
    alone = run("method=plain")
    first, last = found["bottle"], found["cable"]
    assert first["notes"]["order"] == ["bottle", "cable"]
    assert first["counts"]["train"] == 12
    assert [(stage["stage"], stage["trained"]) for stage in first["history"]] == [(1, "bottle"), (2, "cable")]
    assert [(stage["stage"], stage["trained"]) for stage in last["history"]] == [(2, "cable")]
    for record in (first, last):  # the record's own values are those after the last task
        assert {where: record["history"][-1][where] for where in record["metrics"]} == metrics(record)
    # This method forgets: after its own task it is what it is alone, after the last it knows that one only.
    assert {where: first["history"][0][where] for where in alone["bottle"]["metrics"]} == metrics(
        alone["bottle"]
    )
    assert metrics(last) == metrics(alone["cable"])
    assert "forgetting" not in last
    for where, values in first["forgetting"].items():
        for metric, value in values.items():
            before, after = first["history"][0][where][metric], first["metrics"][where][metric]
            assert value == pytest.approx(before - after, abs=1e-12)
    assert first["forgetting"]["full"]["pixel_auroc"] > 0.9
    assert first["forgetting"]["paper"]["pixel_auroc"] > 0.9
    assert first["forgetting"]["image"]["image_auroc"] > 0.1


def test_forgetting_is_the_loss_since_the_best_earlier_task() -> None:
    from ad_bench.runner.cell import _forgetting

    nan = float("nan")
    earlier = [
        {"stage": 1, "trained": "a", "image": {"image_auroc": 0.7, "image_aupr": nan}},
        {"stage": 2, "trained": "b", "image": {"image_auroc": 0.9, "image_aupr": 0.5}},
    ]
    found = _forgetting(earlier, {"image": {"image_auroc": 0.6, "image_aupr": 0.75}, "full": {}})
    assert found == {"image": {"image_auroc": pytest.approx(0.3), "image_aupr": -0.25}}
    assert _forgetting(earlier, {"image": {"image_auroc": nan, "image_aupr": nan}}) == {}


def test_continual_is_one_method_in_the_order_asked(run: Run, data: Path) -> None:
    shutil.rmtree(data / "cable")
    write_category(data, "cable", train=2)
    words = ("method=keeper", "protocol=continual", "protocol.order=[cable,bottle]")
    found = run(*words)
    assert found["cable"]["protocol"] == "continual-order=cable+bottle"
    assert [stage["trained"] for stage in found["cable"]["history"]] == ["cable", "bottle"]
    assert len(found["bottle"]["history"]) == 1
    together = run("method=keeper", "protocol=unified")  # it keeps all, so the last task leaves it the same
    for category in ("bottle", "cable"):
        assert metrics(found[category])["image"] == pytest.approx(metrics(together[category])["image"])


def test_a_broken_category_of_a_continual_run_fails_alone(run: Run, data: Path) -> None:
    (data / "bottle" / "ground_truth" / "spot" / "001_mask.png").write_bytes(b"no image")
    found = run("method=plain", "protocol=continual", failed=1)
    assert found["cable"]["status"] == "done"
    assert found["bottle"]["status"] == "failed"
    assert "001_mask.png" in found["bottle"]["error"]["message"]


def test_logical_is_the_mean_over_its_kinds(run: Run, data: Path) -> None:
    for part in ("test", "ground_truth"):
        home = data / "bottle" / part
        (home / "spot").rename(home / "structural_anomalies")
        (home / "logical_anomalies").mkdir()
        for path in sorted((home / "structural_anomalies").glob("002*")):
            path.rename(home / "logical_anomalies" / path.name)
    found = run("method=plain", "protocol=logical")
    kinds = ["structural_anomalies", "logical_anomalies"]
    assert found["bottle"]["averaged"] == kinds
    assert found["bottle"]["counts"]["train"] == 6
    for where, values in metrics(found["bottle"]).items():
        for metric, value in values.items():
            parts = [found["bottle"]["by_defect"][kind][where][metric] for kind in kinds]
            assert value == pytest.approx(sum(parts) / 2)
    assert found["cable"]["reason"] == (
        "'cable' has no structural_anomalies and no logical_anomalies to average over; it has: spot. "
        "protocol=logical is for MVTec LOCO AD: use full"
    )


def test_cross_trains_on_the_other_data_set_even_where_names_are_equal(
    run: Run, tmp_path: Path, data: Path
) -> None:
    other = tmp_path / "other"
    for category in ("bottle", "cable"):  # the same names, other pictures
        write_category(other, category, train=5)
        for path in (other / category / "train" / "good").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    words = (
        "method=plain",
        "protocol=cross",
        "dataset@protocol.source=mvtec",
        f"protocol.source.root={other}",
    )
    found = run(*words)
    assert {record["protocol"] for record in found.values()} == {"cross-mvtec"}
    notes = found["cable"]["notes"]
    assert (notes["images"], notes["source"], notes["trained_on"]) == (10, "mvtec", ["bottle", "cable"])
    assert {record["fingerprint"]["fit"] for record in found.values()} == {
        found["bottle"]["fingerprint"]["fit"]
    }
    one = run(*words, "protocol.source_categories=[cable]", "category=bottle")
    assert set(one) == {"bottle"}
    assert one["bottle"]["notes"]["images"] == 5
    (path,) = (tmp_path / "results").rglob(f"{one['bottle']['fingerprint']['cell']}/config.yaml")
    assert str(tmp_path) not in path.read_text()  # no folder of this machine, of neither data set
    pixels = [np.asarray(Image.open(path)) for path in (other / "cable" / "train" / "good").iterdir()]
    assert one["bottle"]["notes"]["brightness"] == pytest.approx(np.mean(pixels) / 255, abs=1e-4)


def test_wrong_sources_and_words_are_said_before_anything_runs(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    cross = ("method=plain", "protocol=cross", "dataset@protocol.source=mvtec")
    with pytest.raises(
        UsageError, match=r"protocol\.source_categories: mvtec has no 'botle'.*Did you mean bottle"
    ):
        planned(*cross, "protocol.source_categories=[botle]")
    with pytest.raises(UsageError, match="no data set mvtec at"):
        planned(*cross, f"protocol.source.root={tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match=r"protocol\.reads=al: expected asked or all"):
        planned("method=plain", "protocol=leave_one_out", "protocol.reads=al")
    with pytest.raises(UsageError, match=r"protocol\.known"):
        planned("method=taught", "protocol=supervised", "protocol.draw=hard")


def test_the_order_of_the_words_changes_nothing(planned: Callable[..., Plan]) -> None:
    there, back = (
        planned("method=plain", "protocol=unified", f"category={names}")
        for names in ("bottle,cable", "cable,bottle")
    )
    assert [cell.fingerprint for cell in there.cells] == [cell.fingerprint for cell in back.cells]


def test_what_was_skipped_runs_once_nothing_speaks_against_it(run: Run, methods: Path) -> None:
    words = ("method=plain", "protocol=zero_shot", "category=bottle")
    assert run(*words)["bottle"]["status"] == "skipped"
    assert run(*words)["bottle"]["status"] == "skipped"
    path = methods / "method" / "plain.yaml"
    path.write_text(path.read_text().replace("trains: true", "trains: false"))
    assert run(*words)["bottle"]["status"] == "done"
