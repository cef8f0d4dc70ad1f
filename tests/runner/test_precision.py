"""runtime.precision: what computes in it, what does not, and that rows and records say so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ad_bench.config import choices, compose, precision
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.records import read_all
from ad_bench.runner.fingerprint import Fingerprints
from ad_bench.runner.precision import allow, apply
from ad_bench.samples import Group

Call = Callable[..., subprocess.CompletedProcess[str]]
TINY = "test_resnet.r160_in1k"
DEBUG = ("dataset=mvtec", "category=bottle", "runtime=debug", "runtime.device=cpu")


class Pair(torch.nn.Module):
    """A pretrained network and one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(TINY, [1, 2], "random")
        self.own = torch.nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_the_backbone_alone_computes_in_half_precision_and_answers_in_float32(name: str) -> None:
    pair, images = Pair(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact, own = pair.backbone(images), pair.own(images)
    inner: list[torch.dtype] = []
    for module in pair.backbone.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, _given, out: inner.append(out.dtype))
    apply(name, pair)
    rough = pair.backbone(images)
    assert set(inner) == {getattr(torch, name)}
    assert torch.equal(pair.own(images), own)
    for one, two in zip(exact, rough, strict=True):
        assert two.dtype == torch.float32
        error = (one - two).norm() / one.norm()
        assert 0 < error < 0.05
    apply("float32", pair)
    assert all(map(torch.equal, pair.backbone(images), exact))


def test_gradients_pass_through_half_precision_to_the_images() -> None:
    backbone = Backbone(TINY, [1, 2], "random")
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    (exact,) = torch.autograd.grad(backbone(images)[1].square().sum(), images)
    apply("bfloat16", backbone)
    (rough,) = torch.autograd.grad(backbone(images)[1].square().sum(), images)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).norm() / exact.norm() < 0.2


def test_tf32_is_refused_where_there_is_no_gpu_and_the_others_are_not() -> None:
    with pytest.raises(UsageError, match="tf32 is a mode of NVIDIA's GPUs, and this run is on cpu"):
        allow("tf32", torch.device("cpu"))
    before = torch.get_float32_matmul_precision()
    for name in ("float32", "bfloat16", "float16"):
        allow(name, torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_uses_tf32_only_where_it_is_asked_for() -> None:
    for name, wanted in (("tf32", True), ("float32", False), ("tf32", True), ("bfloat16", False)):
        allow(name, torch.device("cuda"))
        assert torch.backends.cuda.matmul.allow_tf32 is wanted
        assert torch.backends.cudnn.allow_tf32 is wanted
    allow("float32", torch.device("cuda"))


def test_a_word_that_is_none_is_said_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"runtime.precision=bfloat: expected .*Did you mean bfloat16"):
        compose(["method=padim", "dataset=mvtec", "runtime.precision=bfloat"])


def _choice(*words: str) -> tuple[str, str, tuple[str, ...]]:
    (choice,) = choices([*words, "dataset=mvtec"])
    group = Group("bottle", (), {})
    return (
        choice.variant,
        Fingerprints().fit(choice.config, group, 0, None, ["random"]),
        choice.settings,
    )


def test_rows_and_fingerprints_tell_precisions_apart() -> None:
    plain = _choice("method=padim")
    half = _choice("method=padim", "runtime.precision=bfloat16")
    other = _choice("method=padim", "runtime.precision=tf32")
    assert (half[0], half[2]) == ("precision=bfloat16", ("precision=bfloat16",))
    assert other[0] == "precision=tf32"
    assert len({plain[1], half[1], other[1]}) == 3
    assert _choice("method=padim", "runtime.precision=float32") == plain


def test_half_precision_changes_nothing_in_a_method_without_a_backbone() -> None:
    plain = _choice("method=draem")
    assert _choice("method=draem", "runtime.precision=float16") == plain
    tf32 = _choice("method=draem", "runtime.precision=tf32")
    assert tf32[0] == "precision=tf32"
    assert tf32[1] != plain[1]
    config = compose(["method=draem", "dataset=mvtec", "runtime.precision=bfloat16"])
    assert precision(config) == "float32"


def test_a_run_in_half_precision_is_a_row_of_its_own(adbench: Call, data: Path, tmp_path: Path) -> None:
    for word in ("float32", "bfloat16"):
        answer = adbench("run", "method=padim", f"runtime.precision={word}", *DEBUG)
        assert answer.returncode == 0, answer.stderr
    found = {record["variant"]: record["marks"] for record in read_all(tmp_path / "results")[0]}
    assert set(found) == {"", "precision=bfloat16"}
    assert "computed in bfloat16" in found["precision=bfloat16"]
    assert "computed in bfloat16" not in found[""]
    refused = adbench("run", "method=padim", "runtime.precision=tf32", *DEBUG)
    assert refused.returncode == 2
    assert "tf32 is a mode of NVIDIA's GPUs" in refused.stderr
    assert len(read_all(tmp_path / "results")[0]) == 2  # nothing was recorded of it
