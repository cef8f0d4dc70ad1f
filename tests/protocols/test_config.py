"""Every protocol's YAML makes its groups, and its label tells its settings apart."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ad_bench import config
from ad_bench.catalogue import LISTS
from ad_bench.errors import UsageError
from tests.protocols import made

CONF = Path(__file__).resolve().parents[2] / "conf" / "protocol"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
KINDS = {"structural_anomalies": 9, "logical_anomalies": 9}
SAMPLES = {name: made.category(name, 20, kinds=KINDS, train_kinds={"cut": 3}) for name in ("nut", "cap")}


def composed(*words: str) -> config.Choice:
    (choice,) = config.choices(["method=random", *words])
    return choice


@pytest.mark.parametrize("name", [name for name in NAMES if name != "own"])
def test_yaml(name: str) -> None:
    choice = composed(f"protocol={name}")
    protocol = choice.config.protocol
    assert protocol.id == name
    assert choice.protocol == protocol.label
    assert set(protocol.get("named") or {}) <= set(protocol)
    more = {"source": {"coin": made.category("coin")}} if name == "cross" else {}
    groups = list(instantiate(protocol.groups)(samples=SAMPLES, seed=0, **more))
    assert sorted(category for group in groups for category in group.tests) == ["cap", "nut"]
    assert [group.skipped for group in groups] == [None] * len(groups)
    plain = OmegaConf.to_container(protocol.groups)
    taken = {key for key in plain if not key.startswith("_")}
    assert all(protocol[key] == plain[key] for key in taken - {"source_id"})  # every setting is passed on


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["few_shot", "protocol.shots=2"], "few_shot-2"),
        (["few_shot", "protocol.augment=[flips,grey]"], "few_shot-4-augment=flips+grey"),
        (["leave_one_out", "protocol.shots=8", "protocol.augment=[regad]"], "leave_one_out-8-augment=regad"),
        (["noisy"], "noisy-0.1"),
        (["noisy", "protocol.ratio=0"], "noisy-0"),
        (["noisy", "protocol.ratio=0.05", "protocol.overlap=true"], "noisy-0.05-overlap"),
        (["noisy", "protocol.reserve=0.2"], "noisy-0.1-reserve=0.2"),
        (["supervised"], "supervised-general-10"),
        (["supervised", "protocol.draw=hard", "protocol.known=cut"], "supervised-hard-10-known=cut"),
        (["mixed", "protocol.masks=16"], "mixed-16"),
        (["continual", "protocol.order=[b,a]"], "continual-order=b+a"),
        (["cross"], "cross-synthetic"),
        (["cross", "dataset@protocol.source=mvtec", "protocol.labelled=true"], "cross-mvtec-labelled"),
    ],
)
def test_labels_tell_settings_apart_and_make_no_variant(words: list[str], label: str) -> None:
    choice = composed(f"protocol={words[0]}", *words[1:])
    assert (choice.protocol, choice.variant) == (label, "")


def test_the_source_of_cross_is_a_data_set_of_its_own() -> None:
    choice = composed("protocol=cross", "dataset@protocol.source=mtd", "dataset=mvtec", "paths.data=/d")
    source = choice.config.protocol.source
    assert (source.root, choice.config.dataset.root) == ("/d/mtd", "/d/mvtec")  # each speaks of itself
    assert source.samples.split_seed == source.split_seed == 0
    other = composed("protocol=cross", "protocol.source.root=/elsewhere", "dataset=mtd")
    assert (other.config.protocol.source.root, other.config.dataset.id) == ("/elsewhere", "mtd")
    with pytest.raises(UsageError, match=r"no dataset 'mvtek'\. Did you mean mvtec"):
        composed("protocol=cross", "dataset@protocol.source=mvtek")
    with pytest.raises(UsageError, match=r"dataset@protocol\.source"):
        composed("protocol=full", "dataset@protocol.source=mvtec")


def test_the_list_says_what_each_is_for() -> None:
    entries = {entry["id"]: entry for entry in LISTS["protocols"]()}
    assert set(entries) == set(NAMES)
    assert all(len(entry["title"]) > 30 for entry in entries.values())
