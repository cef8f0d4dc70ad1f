"""Every protocol's YAML makes its groups."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ad_bench.samples import Sample

CONF = Path(__file__).resolve().parents[2] / "conf" / "protocol"


@pytest.mark.parametrize(
    ("name", "label", "train"),
    [("full", "full", 9), ("few_shot", "few_shot-2", 2), ("unified", "unified", 9)],
)
def test_yaml(name, label, train):
    config = OmegaConf.create({"protocol": OmegaConf.load(CONF / f"{name}.yaml")})
    if name == "few_shot":
        assert config.protocol.label == "few_shot-4"
        config.protocol.shots = 2
    assert (config.protocol.id, config.protocol.label) == (name, label)
    samples = {"nut": tuple(Sample(Path(str(i)), f"nut/{i}", "nut", "train", 0) for i in range(9))}
    [group] = instantiate(config.protocol.groups)(samples=samples, seed=0)
    assert len(group.train) == train
