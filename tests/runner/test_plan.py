"""Which fits a choice becomes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ad_bench import config
from ad_bench.errors import UsageError, WeightsMissing
from ad_bench.parts.weights import find_weights
from ad_bench.runner import plan as planning
from ad_bench.runner.plan import Plan, make_plan
from tests.runner.conftest import write_category


def planned(data: Path, *words: str) -> Plan:
    places = [f"paths.data={data.parent}", f"paths.results={data.parent / 'results'}"]
    return make_plan(config.choices(["dataset=mvtec", *places, *words], multirun=True))


def hashes(plan: Plan) -> dict[str, str]:
    return {str(cell.id): cell.fingerprint for cell in plan.cells}


@pytest.mark.parametrize(
    ("words", "anomalies"), [(["method=devnet", "protocol=supervised"], 2), (["method=mean_image"], 0)]
)
def test_a_debug_run_takes_few_images_of_what_the_protocol_drew(
    words: list[str], anomalies: int, tmp_path: Path, cache: Path
) -> None:
    """Cut before the draw, ten labelled anomalies would leave none to test."""
    places = [f"paths.results={tmp_path}", f"paths.cache={cache}"]
    plan = make_plan(config.choices([*words, "dataset=synthetic", "runtime=debug", *places]))
    assert len(plan.fits) == 4
    for fit in plan.fits:
        assert fit.group.skipped is None
        assert Counter(s.label for s in fit.group.train) == Counter({0: 4 - anomalies, 1: anomalies})
        for tests in fit.group.tests.values():
            assert Counter(s.label for s in tests) == Counter({0: 4, 1: 4})


def test_the_few_images_are_few_of_each_category(tmp_path: Path, cache: Path) -> None:
    places = [f"paths.results={tmp_path}", f"paths.cache={cache}"]
    plan = make_plan(config.choices(["method=uniad", "dataset=synthetic", "runtime=debug", *places]))
    (fit,) = plan.fits
    assert set(Counter(s.category for s in fit.group.train).values()) == {4}
    assert len({s.category for s in fit.group.train}) == 4


def test_seeds_planned_together_are_what_they_are_alone(data: Path) -> None:
    words = ["method=random,devnet,regad", "backbone.weights=random"]
    together = planned(data, *words, "seed=0,1,2")
    alone = [planned(data, *words, f"seed={seed}") for seed in range(3)]
    assert len(together.cells) == 18
    assert hashes(together) == {key: value for plan in alone for key, value in hashes(plan).items()}


def test_the_next_plan_sees_what_changed(data: Path) -> None:
    """A worker lives long: an image of another size, one more, one less, a mask."""
    first = hashes(planned(data, "method=random"))
    assert hashes(planned(data, "method=random")) == first
    image, mask = data / "bottle/train/good/000.png", data / "cable/ground_truth/spot/000_mask.png"
    content = image.read_bytes()
    image.write_bytes(content + b" ")
    second = hashes(planned(data, "method=random"))
    changed = [key for key in first if first[key] != second[key]]
    assert changed == ["mvtec/bottle random full-seed0"]
    image.write_bytes(content)
    mask.write_bytes(mask.read_bytes() + b" ")
    third = hashes(planned(data, "method=random"))
    assert [key for key in first if first[key] != third[key]] == ["mvtec/cable random full-seed0"]
    shutil.copy(image, image.with_name("999.png"))
    assert hashes(planned(data, "method=random"))["mvtec/bottle random full-seed0"] not in first.values()
    image.with_name("999.png").unlink()
    write_category(data, "wood")
    assert len(hashes(planned(data, "method=random"))) == 3


def test_the_next_plan_sees_other_weights(data: Path, tmp_path: Path) -> None:
    shipped = find_weights("test_resnet.adbench", "bundled").path
    assert shipped is not None
    path = tmp_path / "test_resnet.adbench.safetensors"
    shutil.copy(shipped, path)
    words = ["method=patchcore", "backbone.name=test_resnet.adbench", f"backbone.weights={path}"]
    before = planned(data, *words)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = planned(data, *words)
    assert set(hashes(before)) == set(hashes(after))
    assert not set(hashes(before).values()) & set(hashes(after).values())


def test_missing_weights_are_sought_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the hub may take seconds, and a sweep names one backbone many times."""
    asked: list[str] = []

    def counted(name: str, weights: str | None = None) -> object:
        asked.append(name)
        return find_weights(name, "bundled")

    monkeypatch.setattr(planning, "find_weights", counted)
    with pytest.raises(UsageError, match="adbench ships no weights") as error:
        planned(data, "method=patchcore,padim,spade", "backbone.name=resnet18.tv_in1k")
    assert asked == ["resnet18.tv_in1k"]
    assert str(error.value).count("adbench ships no weights") == 1


def test_missing_weights_are_listed_together_and_hinder_no_look(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str, weights: str | None = None) -> object:
        raise WeightsMissing(name, f"Looked for, in this order:\n  1. {name}.safetensors")

    monkeypatch.setattr(planning, "find_weights", nowhere)
    places = [f"paths.data={data.parent}", f"paths.results={data.parent / 'out'}"]
    words = ["dataset=mvtec", "method=random,patchcore,padim,stfpm", *places]
    chosen = config.choices(words, multirun=True)
    with pytest.raises(UsageError) as error:
        make_plan(chosen)
    assert str(error.value).splitlines() == [
        "no weights for 'wide_resnet50_2.tv_in1k' (patchcore, padim)",
        "no weights for 'resnet18.tv_in1k' (stfpm)",
        "The last of them: Looked for, in this order:",
        "  1. resnet18.tv_in1k.safetensors",
    ]
    plan = make_plan(chosen, complete=False)
    assert {cell.id.method for cell in plan.cells} == {"random"}
    assert plan.lacking == str(error.value)


def test_a_choice_names_the_words_that_compose_it(data: Path) -> None:
    words = ["method=random,mean_image", "dataset=mvtec", "category=cable", "seed=3,4", "variant='a, b'"]
    choices = config.choices([*words, f"paths.data={data.parent}", "method.input={size: 32}"], multirun=True)
    assert len(choices) == 2
    for choice in choices:
        (again,) = config.choices(choice.words)
        assert OmegaConf.to_container(again.config) == OmegaConf.to_container(choice.config)
        assert (again.method, again.variant, again.settings) == (
            choice.method,
            choice.variant,
            choice.settings,
        )
        assert again.words == choice.words
        assert not any(word.startswith(("category=", "seed=")) for word in choice.words)
    (fit, *_) = planned(data, "method=random").fits
    assert fit.words[-1] == "method=random"


def test_a_plan_imports_no_torch(data: Path) -> None:
    """Whatever a method's settings name: regad's optimiser is one of torch's."""
    code = (
        "import sys\nfrom ad_bench import config\nfrom ad_bench.runner.plan import make_plan\n"
        "plan = make_plan(config.choices(sys.argv[1:], multirun=True))\n"
        "assert len(plan.cells) == 4\n"
        "heavy = {'torch', 'timm', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    words = ["method=regad,cfa", "dataset=mvtec", f"paths.data={data.parent}", "backbone.weights=random"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
