"""Writes tests/methods/fixtures/regad.npz by running the authors' code on weights and features by name.

Needs a checkout of MediaBrain-SJTU/RegAD at 5e2c1f8, kornia and tqdm:
python scripts/make_regad_fixture.py CHECKOUT
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from seeded import drawn, fill
from torch import Tensor, nn

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "regad.npz"
QUERIES, SHOTS = 3, 2
SAMPLED = 499  # every so many-th value of a gradient or a level is kept
GRADIENTS = (
    "network.conv1.weight",
    "network.layer3.1.conv2.weight",
    "network.stn1.conv.0.weight",
    "network.stn2.fc.0.weight",
    "network.stn3.fc.2.weight",
    "encoder.conv3.weight",
    "predictor.conv1.weight",
)
LEVELS = ((6, 8), (5, 4), (7, 2))  # channels and side of the features that stand for an image of 32 pixels


class Levels(nn.Module):
    """Stands for the transformed network: features by name, `support` first, then the queries in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = -1

    def forward(self, images: Tensor) -> Tensor:
        name = "support" if self.seen < 0 else f"query{self.seen}"
        levels = [drawn(f"{name} {c}", (len(images), c, side, side)) for c, side in LEVELS]
        self.stn1_output, self.stn2_output, self.stn3_output = levels
        self.seen += 1
        return levels[2]


class Waiting:
    """An optimiser that never steps, so that the gradients stay."""

    def zero_grad(self) -> None:
        pass

    def step(self) -> None:
        pass


def on_cpu(train: Any) -> None:
    """The authors' code asks for a GPU in places."""
    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    torch.Tensor.get_device = lambda self: "cpu"  # type: ignore[method-assign, assignment, return-value]
    joined = train.embedding_concat
    train.embedding_concat = lambda one, two, _: joined(one, two, False)
    train.device = torch.device("cpu")


def registration(train: Any) -> dict[str, np.ndarray]:
    """One step of their training: its loss, gradients, and the levels brought back to their places."""
    network = train.stn_net(argparse.Namespace(stn_mode="rotation_scale"), pretrained=False)
    encoder, predictor = train.Encoder(), train.Predictor()
    whole = nn.ModuleDict({"network": network, "encoder": encoder, "predictor": predictor})
    fill(whole.state_dict())
    for number in (1, 2, 3):  # turns and scales of a usual size
        last = getattr(network, f"stn{number}").fc[2]
        last.weight.data *= 0.1
        last.bias.data += torch.tensor([0.0, 1.0, 1.0])
    queries = drawn("queries", (1, QUERIES, 3, 224, 224)).sigmoid()
    others = drawn("others", (1, QUERIES, SHOTS, 3, 224, 224)).sigmoid()
    meters: list[Any] = []
    meter = train.AverageMeter
    train.AverageMeter = lambda: meters.append(meter()) or meters[-1]  # type: ignore[func-returns-value]
    batches = [(queries, others, None)]
    train.train([network, encoder, predictor], 1, batches, [Waiting()] * 3, io.StringIO())
    kept = {"loss": np.array(meters[-1].avg)}
    for name in GRADIENTS:
        gradient = whole.get_parameter(name).grad
        assert gradient is not None
        kept[f"gradient {name}"] = gradient.flatten()[::SAMPLED].numpy()
    with torch.no_grad():
        network(queries[0])
    for number in (1, 2, 3):
        kept[f"level {number}"] = getattr(network, f"stn{number}_output").flatten()[::SAMPLED].numpy()
    return kept


def comparison(train: Any) -> np.ndarray:
    """Their anomaly maps for given features."""
    query = torch.zeros(1, 3, 32, 32)
    loader = [(query, None, torch.zeros(1, 1, 32, 32), torch.zeros(1)) for _ in range(QUERIES)]
    support = [torch.rand(SHOTS, 3, 32, 32)]
    maps, *_ = train.test([Levels(), nn.Identity(), nn.Identity()], 0, support, loader)
    return np.asarray(maps)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    display: Any = ModuleType("IPython.display")
    display.display_html = None
    notebook: Any = ModuleType("IPython")
    notebook.get_ipython, notebook.display = None, display
    sys.modules |= {"IPython": notebook, "IPython.display": display}
    import train

    on_cpu(train)
    kept = registration(train) | {"maps": comparison(train)}
    sizes = {"queries": QUERIES, "shots": SHOTS, "sampled": SAMPLED, "levels": LEVELS}
    np.savez_compressed(OUT, **kept, **{name: np.array(value) for name, value in sizes.items()})  # type: ignore[arg-type]
    print(f"{OUT}: {OUT.stat().st_size} bytes; loss {kept['loss']}, maps up to {kept['maps'].max()}")


if __name__ == "__main__":
    main(sys.argv[1])
