"""FLOPs are those of torch's own counter, without what that imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.runner.scoring import flops

CPU = torch.device("cpu")


class Network(Method):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def fit(self, train: TrainSet, run: Run) -> None:
        pass

    def predict(self, inputs: Inputs) -> Prediction:
        return Prediction(self.network(inputs.images).flatten(1).amax(1), None)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv2_100"])
def test_flops_are_those_of_torchs_counter(name: str) -> None:
    import timm  # imports the compiler, which the last test must not see

    method = Network(timm.create_model(name, pretrained=False))
    image = torch.zeros(1, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        method.predict(Inputs(image))
    assert flops(method, (224, 224), CPU) == counter.get_total_flops() > 10**8


def test_a_convolution_by_hand() -> None:
    method = Network(torch.nn.Conv2d(3, 4, 3, bias=False))
    assert flops(method, (10, 12), CPU) == 2 * 4 * 8 * 10 * 3 * 3 * 3


def test_a_method_that_cannot_be_counted_has_none() -> None:
    assert flops(Network(torch.nn.Linear(7, 7)), (8, 8), CPU) is None


def test_counting_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from tests.runner.test_flops import CPU, Network, flops\n"
        "assert flops(Network(torch.nn.Conv2d(3, 4, 3)), (8, 8), CPU)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)
