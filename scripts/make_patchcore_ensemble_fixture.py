"""Writes tests/methods/fixtures/patchcore_ensemble.npz by running the authors' code on given features.

Needs a checkout of amazon-science/patchcore-inspection at fcaa92f and what it imports (faiss-cpu, click,
tqdm, matplotlib): python scripts/make_patchcore_ensemble_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "patchcore_ensemble.npz"
SHAPES = [(6, 8, 6), (10, 4, 3)]
MEMBERS = [
    (3, 40, 40, 1),
    (5, 64, 24, 3),
]  # patch size, dimensions of the levels and of the patches, neighbours
TRAIN, TESTS, SIZE = 3, 4, (64, 48)


class Levels(nn.Module):
    """A backbone that gives the features of set number `which`; of member 1 one level is twice as large."""

    def __init__(self, member: int) -> None:
        super().__init__()
        self.layer2, self.layer3 = nn.Identity(), nn.Identity()
        self.member, self.which, self.seed = member, 0, None

    def forward(self, images: Tensor) -> Tensor:
        from tests.written_down import features

        two, three = features(SHAPES, len(images), self.which + 10 * self.member)
        self.layer2((1 + self.member) * two.float())
        return self.layer3(three.float())


class Given(Dataset):  # type: ignore[type-arg]
    """What the authors' loop asks of a data set; every other image has a mask."""

    def __init__(self, count: int) -> None:
        self.imagesize = (3, *SIZE)
        self.data_to_iterate = [("given", "good" if index % 2 else "bad", "", "") for index in range(count)]

    def __len__(self) -> int:
        return len(self.data_to_iterate)

    def __getitem__(self, index: int) -> dict[str, object]:
        bad = 1 - index % 2
        return {"image": torch.zeros(3, *SIZE), "is_anomaly": bad, "mask": torch.full((1, *SIZE), float(bad))}


def loader(count: int) -> DataLoader:  # type: ignore[type-arg]
    found = DataLoader(Given(count), batch_size=count)
    found.name = "given"  # type: ignore[attr-defined]
    return found


def main(checkout: str) -> None:
    sys.path[:0] = [str(Path(checkout) / "src"), str(Path(checkout) / "bin"), str(ROOT)]
    import patchcore.metrics
    import run_patchcore
    from patchcore.common import FaissNN
    from patchcore.patchcore import PatchCore
    from patchcore.sampler import IdentitySampler

    def members(imagesize, sampler, device):  # type: ignore[no-untyped-def]
        found = []
        for index, (patch, pretrain, target, neighbors) in enumerate(MEMBERS):
            model = PatchCore(device)
            model.load(
                backbone=Levels(index),
                layers_to_extract_from=["layer2", "layer3"],
                device=device,
                input_shape=imagesize,
                pretrain_embed_dimension=pretrain,
                target_embed_dimension=target,
                patchsize=patch,
                anomaly_score_num_nn=neighbors,
                featuresampler=sampler,
                nn_method=FaissNN(False, 1),
            )
            model.fit = partial(seeing, model, 1, model.fit)
            model.predict = partial(seeing, model, 2, model.predict)
            found.append(model)
        return found

    def seeing(model, which, call, data):  # type: ignore[no-untyped-def]
        model.backbone.which = which
        return call(data)

    kept: dict[str, np.ndarray] = {}

    def image_metrics(scores, labels):  # type: ignore[no-untyped-def]
        kept["scores"] = np.asarray(scores)
        return {"auroc": 0.0}

    def pixel_metrics(maps, masks):  # type: ignore[no-untyped-def]
        kept.setdefault("maps", np.asarray(maps)[:, ::9, ::7])  # the first call has all images
        return {"auroc": 0.0}

    patchcore.metrics.compute_imagewise_retrieval_metrics = image_metrics
    patchcore.metrics.compute_pixelwise_retrieval_metrics = pixel_metrics
    torch.cuda.empty_cache = lambda: None
    methods = {
        "get_dataloaders": lambda seed: [{"training": loader(TRAIN), "testing": loader(TESTS)}],
        "get_sampler": lambda device: IdentitySampler(),
        "get_patchcore": members,
    }
    with tempfile.TemporaryDirectory() as folder:
        run_patchcore.run(list(methods.items()), folder, [], 0, "group", "project", False, False)
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **kept)


if __name__ == "__main__":
    main(sys.argv[1])
