from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ad_bench import config, reference
from ad_bench.errors import UsageError


def one(*words: str, dirs: tuple[Path, ...] = (), multirun: bool = False) -> config.Choice:
    (choice,) = config.choices(words, dirs, multirun)
    return choice


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "two_eyes.yaml").write_text(
        "title: Two eyes\nneeds: []\ninput: {size: 32}\nloader: {batch_size: 1}\nmodel:\n"
        "  _target_: somewhere.TwoEyes\n"
        "  left: {_target_: ad_bench.parts.backbone.Backbone, name: a.x, layers: [1], weights: null}\n"
        "  right: {_target_: ad_bench.parts.backbone.Backbone, name: b.x, layers: [1], weights: null}\n"
    )
    return tmp_path


def test_categories_and_seeds_make_cells_without_multirun() -> None:
    choice = one("method=random", "category=bottle,01", "seed=0,2")
    assert choice.categories == ("bottle", "01")  # 01 stays text
    assert choice.seeds == (0, 2)
    assert one("method=random", "category=all").categories == ()
    assert one("method=random", "seed=range(0,3)").seeds == (0, 1, 2)
    assert one("method=random", "seed=[4,5]").seeds == (4, 5)


@pytest.mark.parametrize("seed", ["a", "-1", "1,x", "", "1.5"])
def test_a_seed_that_is_none_is_refused(seed: str) -> None:
    with pytest.raises(UsageError, match="seed="):
        config.choices(["method=random", f"seed={seed}"])


def test_commas_elsewhere_need_multirun() -> None:
    with pytest.raises(UsageError, match="add -m"):
        config.choices(["method=random,mean_image"])
    swept = config.choices(["method=random,mean_image", "dataset=synthetic,mtd"], multirun=True)
    assert [(c.method, c.dataset) for c in swept] == [
        ("random", "synthetic"),
        ("random", "mtd"),
        ("mean_image", "synthetic"),
        ("mean_image", "mtd"),
    ]


def test_glob_sweeps_over_the_files_of_a_group() -> None:
    swept = config.choices(["method=glob(p*)"], multirun=True)
    assert {"patchcore", "padim"} <= {c.method for c in swept}
    with pytest.raises(UsageError, match="fits none of"):
        config.choices(["method=glob(zzz*)"], multirun=True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["method=patchcor"], "Did you mean patchcore"),
        (["method=patchcore", "dataset=mvtek"], "Did you mean mvtec"),
        (["method=patchcore", "backbone=resnet81"], "Did you mean resnet18"),
        (["method=patchcore", "method.model.coreset_rato=0.1"], "method.model.coreset_ratio"),
        (["method=patchcore", "coreset_ratio=0.1"], "method.model.coreset_ratio"),
        (["method=patchcore", "rernu=always"], "rerun"),
        (["suite=dem"], "Did you mean demo"),
        (["dataset=mtd"], "which method"),
        (["method=patchcore", "method.model.coreset_ratio"], "expected key=value"),
    ],
)
def test_wrong_names_are_answered_with_the_closest(words: list[str], named: str) -> None:
    with pytest.raises(UsageError) as error:
        config.choices(words)
    assert named in str(error.value)


def test_an_override_of_the_method_makes_a_variant() -> None:
    assert one("method=patchcore").variant == ""
    choice = one("method=patchcore", "method.model.coreset_ratio=0.01", "backbone=resnet18")
    assert choice.variant == "backbone=resnet18,coreset_ratio=0.01"
    assert choice.config.method.model.coreset_ratio == 0.01
    assert one("method=patchcore", "rerun=always", "paths.data=/x", "runtime.device=cpu").variant == ""
    mine = one("method=patchcore", "variant=mine", "backbone=resnet18")
    assert (mine.variant, mine.settings) == ("mine", ("backbone=resnet18",))  # whatever it is called
    assert one("method=patchcore", "backbone.weights=/here/resnet.safetensors").variant == ""
    assert one("method=patchcore", "dataset=folder", "dataset.samples.mask_dir=masks").variant
    assert (
        one("method=random", "dataset=folder", "dataset.id=mugs", "dataset.samples.mask_dir=m").variant == ""
    )
    assert one("method=patchcore", "dataset.input={short: 256, crop: 224}").variant.startswith(
        "dataset.input="
    )


def test_a_mapping_replaces_what_stands_there() -> None:
    given = "method.input={size: [256, 128], interpolation: 'bicubic'}"
    choice = one("method=patchcore", "dataset=mvtec", given)
    assert choice.config.method.input == {"size": [256, 128], "interpolation": "bicubic"}
    with pytest.raises(UsageError, match=r"no setting 'method\.inptu'"):
        one("method=patchcore", "method.inptu={size: 256}")


def test_backbone_replaces_the_network_and_what_depends_on_it() -> None:
    own, other = one("method=padim").config, one("method=padim", "backbone=resnet18").config
    assert own.method.model.backbone.name == "wide_resnet50_2.tv_in1k"
    assert own.method.model.dimensions == 550
    assert other.method.model.backbone.name == "resnet18.tv_in1k"
    assert other.method.model.dimensions == 100
    mine = one("method=padim", "backbone=resnet18", "method.model.dimensions=50")
    assert mine.config.method.model.dimensions == 50  # what the user says wins over what goes with a backbone
    layers = one("method=devnet", "backbone=resnet18", "method.model.backbone.layers=[2]").config.method.model
    assert (layers.backbone.layers, layers.backbone.name) == ([2], "resnet18.tv_in1k")
    assert list(other.backbone.paper) == ["wide_resnet50_2.tv_in1k"]


def test_backbone_means_nothing_to_a_method_without_one() -> None:
    assert one("method=random", "backbone=resnet18").variant == ""


def test_backbone_is_refused_by_a_method_of_several(mine: Path) -> None:
    with pytest.raises(UsageError, match="2 backbones"):
        config.choices(["method=two_eyes", "backbone=resnet18"], [mine])
    weights = one("method=two_eyes", "backbone.weights=random", dirs=(mine,)).config.method.model
    assert weights.left.weights == weights.right.weights == "random"


def test_null_protocol_and_backbone_are_the_methods_own() -> None:
    choice = one("method=patchcore", "protocol=null", "backbone=null")
    assert (choice.protocol, choice.variant) == ("full", "")


def test_protocol_settings() -> None:
    assert one("method=patchcore", "protocol=few_shot", "protocol.shots=2").protocol == "few_shot-2"


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        config.choices(["method=random"], [tmp_path / "nowhere"])


def test_a_debug_run_is_short_and_waits_for_no_weights() -> None:
    model = one("method=uniad", "runtime=debug").config.method.model
    assert (model.backbone.name, model.backbone.weights) == ("test_resnet.adbench", "bundled")
    assert list(model.backbone.layers) == [1, 2, 3]  # what the method's YAML says of this backbone
    assert (model.width, list(model.grid)) == (32, [4, 4])  # its contract.model
    model = one(
        "method=uniad", "runtime=debug", "backbone=resnet18", "method.model.width=48"
    ).config.method.model
    assert (model.backbone.name, model.backbone.weights) == ("resnet18.tv_in1k", None)
    assert (model.width, list(model.grid)) == (48, [4, 4])  # the user's word wins
    model = one("method=uniad").config.method.model
    assert (model.width, list(model.grid)) == (256, [14, 14])


@pytest.mark.parametrize("word", ["method.input.size=[64,64]", "method.input={size: [64, 64]}"])
def test_an_input_that_the_data_set_overrules_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"has no effect: data set 'synthetic' .*dataset.input=null"):
        config.choices(["method=riad", "dataset=synthetic", word])
    choice = one("method=riad", "dataset=synthetic", word, "dataset.input=null")
    assert choice.config.method.input.size == [64, 64]


def test_suites_list_runs() -> None:
    found = config.choices(["suite=demo", "rerun=never"])
    assert "patchcore" in {c.method for c in found}
    assert {c.config.rerun for c in found} == {"never"}  # the user's word wins over the suite's


@pytest.mark.parametrize("suite", sorted(config.options("suite")))
def test_every_suite_composes(suite: str) -> None:
    found = config.choices([f"suite={suite}"])
    rows = [(c.method, c.dataset, c.variant, c.protocol) for c in found]
    assert len(set(rows)) == len(rows)


def test_the_demo_has_a_method_of_every_row_with_methods() -> None:
    rows = {name: row["taxonomy"] for name, row in reference.methods().items()}
    there = {rows[name] for name in config.options("method") if name in rows}
    assert there >= {"memory_bank", "recon_gan", "recon_diffusion", "few_shot", "noisy", "supervised"}
    assert {rows.get(c.method) for c in config.choices(["suite=demo"])} >= there


def test_a_suite_of_families_takes_a_users_method_too(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    text = config.options("method")["mean_image"].read_text()
    (tmp_path / "method" / "mine.yaml").write_text(
        text.replace("taxonomy: baseline", "taxonomy: memory_bank")
    )
    found = {choice.method for choice in config.choices(["suite=feature_embedding"], [tmp_path])}
    assert {"mine", "patchcore", "stfpm", "fastflow"} <= found
    assert not {"mean_image", "draem", "softpatch"} & found


def test_one_backbone_for_a_suite_leaves_out_methods_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    config._remark.cache_clear()
    found = {choice.method for choice in config.choices(["suite=feature_embedding", "backbone=resnet18"])}
    assert {"patchcore", "stfpm", "csflow"} <= found
    assert not {"patchcore_ensemble", "rstpm"} & found
    said = capsys.readouterr().err
    assert [name for name in ("patchcore_ensemble", "rstpm", "several backbones") if name not in said] == []
    with pytest.raises(UsageError, match="set them one by one"):  # named alone it is not what was asked for
        config.choices(["suite=feature_embedding", "method=rstpm,rstdn", "backbone=resnet18"])


def test_a_method_without_published_weights_joins_a_suite_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text(
        "runs:\n  - method: all\n    dataset: [mvtec]\n"
        "  - method: [spd_padim]\n    dataset: [mtd]\n    overrides: [backbone=bundled]\n"
    )
    found = config.choices(["suite=mine"], [tmp_path])
    assert {c.dataset for c in found if c.method.startswith("spd_")} == {"mtd"}
    assert {"patchcore", "mspb", "mean_image"} <= {c.method for c in found}


def test_method_and_dataset_choose_among_the_runs_of_a_suite() -> None:
    found = config.choices(["suite=demo", "method=padim,random", "dataset=synthetic"])
    assert {c.method for c in found} == {"padim", "random"}
    with pytest.raises(UsageError, match=r"suite 'demo' has no method=padin.*padim"):
        config.choices(["suite=demo", "method=padin"])
    with pytest.raises(UsageError, match=r"suite 'demo' has no dataset=mtd.*synthetic"):
        config.choices(["suite=demo", "dataset=mtd"])


def test_every_number_of_every_yaml_parses() -> None:
    for group in config.GROUPS:
        for path in config.options(group).values():
            assert OmegaConf.load(path) is not None


@pytest.mark.parametrize(
    ("words", "protocol", "compositions"),
    [
        (["method=patchcore"], "full", 1),
        (["method=regad"], "leave_one_out-2", 1),  # its file names it
        (["method=regad", "protocol=full"], "full", 1),
        (["method=regad", "protocol=null"], "leave_one_out-2", 2),
        (["method=patchcore", "method.protocol=few_shot"], "few_shot-4", 2),
        (["method=heir"], "leave_one_out-2", 2),  # it takes it over from another file
    ],
)
def test_the_methods_own_protocol_mostly_takes_one_composition(
    words: list[str], protocol: str, compositions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "heir.yaml").write_text("defaults: [regad, _self_]\ntitle: Heir\n")
    count = 0
    compose = config._hydra

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return compose(*arguments)

    monkeypatch.setattr(config, "_hydra", counted)
    (choice,) = config.choices(words, [tmp_path])
    assert (choice.protocol, count) == (protocol, compositions)
