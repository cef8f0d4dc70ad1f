"""AltUB on its two hosts: what the learnt base changes, and what it leaves."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ad_bench.config import compose
from ad_bench.contract import Inputs, Method, Run
from ad_bench.parts.base import Base, Moved
from tests import tiny

HOSTS = {"altub": "fastflow", "cflow_ad_altub": "cflow_ad"}
SHORT = {
    "altub": {"epochs": 6, "steps": 2, "kernels": [3]},
    "cflow_ad_altub": {"meta_epochs": 2, "sub_epochs": 2, "steps": 2},
}


def made(name: str, short: str) -> Method:
    """The method of a YAML, on a tiny untrained backbone, with a schedule of seconds."""
    model = OmegaConf.create(OmegaConf.to_container(compose([f"method={name}"]).method.model, resolve=True))
    tiny_one = {"backbone": {"name": "test_resnet.r160_in1k", "weights": "random", "layers": [2, 3]}}
    torch.manual_seed(0)
    return instantiate(OmegaConf.merge(model, tiny_one, SHORT[short]))  # type: ignore[no-any-return]


def bases(method: Method) -> list[Base]:
    return [one for one in method.modules() if isinstance(one, Base)]


@pytest.mark.parametrize("name", HOSTS)
def test_an_untouched_base_gives_what_the_host_gives(name: str) -> None:
    """Mean 0 and variance 1: the same flow, the same scores; another base, others."""
    method, host = made(name, name).eval(), made(HOSTS[name], name).eval()
    if name == "altub":
        for one in (method, host):
            one.maps.take_shapes(one.backbone(torch.zeros(1, 3, 64, 64)))  # type: ignore[operator, union-attr]
    assert method.load_state_dict(host.state_dict(), strict=False).unexpected_keys == []
    images = tiny.textures(2)
    with torch.no_grad():
        found, wanted = (one.predict(Inputs(images)) for one in (method, host))
        for base in bases(method):
            base.mean += 0.5
            base.log_variance -= 1.0
        moved = method.predict(Inputs(images))
    torch.testing.assert_close(found.maps, wanted.maps)
    torch.testing.assert_close(found.scores, wanted.scores)
    assert not torch.allclose(moved.scores, found.scores)


@pytest.mark.parametrize("name", HOSTS)
def test_the_bases_are_learnt_with_the_flow(name: str) -> None:
    method = made(name, name)
    assert len(bases(method)) == 2
    assert sum(isinstance(one, Moved) for one in method.parameters()) == 4
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.fit(tiny.TensorTrainSet(tiny.textures(8)), Run())
    after = method.state_dict()
    for base in bases(method):
        assert base.mean.abs().max() > 0.001
        assert base.log_variance.abs().max() > 0.001
    weights = [key for key in after if "blocks" in key and key.endswith("subnet.0.weight")]
    assert weights
    assert all(not torch.equal(after[key], before[key]) for key in weights)


def test_yamls_differ_from_their_hosts_in_base_and_optimiser_alone() -> None:
    for name, host in HOSTS.items():
        ours, theirs = (
            OmegaConf.to_container(compose([f"method={one}"]).method, resolve=True) for one in (name, host)
        )
        assert isinstance(ours, dict)
        assert isinstance(theirs, dict)
        differ = {key for key in theirs["model"] if theirs["model"][key] != ours["model"][key]}
        assert differ == {"base", "optimizer"}, name
        for key in ("input", "paper_eval", "loader", "contract", "needs", "protocol"):
            assert ours[key] == theirs[key], key
