"""Writes tests/methods/fixtures/fapm.npz by running the authors' test.py on given features and memories.

Its whole test() runs, on the CPU; only the network and the timers are replaced, and its maps and image scores
are kept. Needs a checkout of eastbrother87/FAPM_official at 5d2d2f2, torchvision, tqdm, einops and OpenCV:
PYTHONPATH=. python scripts/make_fapm_fixture.py CHECKOUT
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.written_down import features

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "fapm.npz"
CHANNELS, IMAGES, NEAR, FAR, SEED = (6, 8), 3, 9, 14, 8  # FAR: points of a hard region


def memories() -> dict[str, Tensor]:
    """Banks of both levels, and every third region of one and fourth of the other a hard one."""
    kept = {}
    for name, channels, hard in zip("fc", CHANNELS, (3, 4), strict=True):
        for kind, count in (("near", NEAR), ("far", FAR)):
            (bank,) = features([(count, channels)], 49, SEED + count + channels)
            kept[f"final_{kind}_core_{name}"] = bank.float()
        kept[f"fn_selector_{name}"] = torch.arange(49) % hard == 0
    return kept


class Numbered(nn.Module):
    """The levels of an image that holds its number."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(CHANNELS[0], 28, 28), (CHANNELS[1], 14, 14)]
        self.levels = [level.float() for level in features(shapes, IMAGES, SEED)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level[images[:, 0, 0, 0].long()] for level in self.levels]


class Clock:
    def __init__(self, **_: object) -> None: ...

    def record(self) -> None: ...

    def elapsed_time(self, _: object) -> float:
        return 1.0


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout).resolve()))
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    torch.cuda.Event = Clock  # type: ignore[misc, assignment]
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    import test as known

    maps: list[np.ndarray] = []
    judged: list[list[float]] = []
    smooth = known.gaussian_filter
    known.gaussian_filter = lambda *given, **named: maps.append(smooth(*given, **named)) or maps[-1]
    known.roc_auc_score = lambda _, scores: judged.append(scores) or 0.5
    known.prep_dirs = lambda root: (root, "", "")
    loader = []
    for number in range(IMAGES):
        image = torch.full((1, 3, 224, 224), float(number))
        loader.append((image, torch.zeros(1, 1, 224, 224), torch.tensor([0]), ["made"], ["good"]))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["test.py", "--category", "made", "--project_root_path", f"{folder}/"]
        Path("made.pkl").write_bytes(pickle.dumps(memories()))
        with torch.no_grad():
            known.test(known.get_args(), Numbered(), loader)
    found = np.stack(maps)
    np.savez_compressed(
        OUT,
        channels=np.array(CHANNELS),
        images=np.array([IMAGES, NEAR, FAR, SEED]),
        scores=np.array(judged[1]),
        maps=found[:, ::9, ::7],
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes; scores {judged[1]}")


if __name__ == "__main__":
    main(sys.argv[1])
