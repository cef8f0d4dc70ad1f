"""Writes tests/methods/fixtures/pni.npz by running the authors' code on given features, memories and weights.

Their data sets cut the neighbourhoods, their Coor_Distribution counts, their network answers and their whole
test_step scores, on the CPU. Replaced are the feature extractor, faiss by plain exact searches, pymp by plain
loops, and pytorch_lightning by nothing. Needs a checkout of wogur110/PNI_Anomaly_Detection at 958626a, SciPy,
scikit-learn and OpenCV: PYTHONPATH=. python scripts/make_pni_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.written_down import features, fill

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "pni.npz"
IMAGES, SIDE, DIM, MEMORY, CLASSES, SEED = 3, 12, 6, 20, 8, 3
SIZE = 8 * SIDE


class Index:
    """What is used of a faiss index: exact searches by squared distance."""

    def __init__(self, points: np.ndarray) -> None:
        self.points, self.ntotal = points, len(points)

    def search(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        squared = ((rows[:, None].astype(np.float64) - self.points[None]) ** 2).sum(2)
        order = squared.argsort(1, kind="stable")[:, :k]
        return np.take_along_axis(squared, order, 1).astype(np.float32), order


class Parallel:
    def __init__(self, _: int) -> None: ...

    def __enter__(self) -> Parallel:
        return self

    def __exit__(self, *_: object) -> None: ...

    def range(self, count: int) -> Iterator[int]:
        return iter(range(count))


def replace_modules() -> None:
    """Modules that are not needed for what is run here, or whose part above stands for."""
    replaced: dict[str, dict[str, object]] = {
        "pytorch_lightning": {"LightningModule": nn.Module},
        "faiss": {},
        "pymp": {"Parallel": Parallel},
    }
    for name, members in replaced.items():
        module = types.ModuleType(name)
        for key, value in members.items():
            setattr(module, key, value)
        sys.modules[name] = module


def counted(known: Any, data: Any, args: Any, index: np.ndarray) -> np.ndarray:
    """Their histogram of the indices (N, h, w), read through their data set."""
    source = data.Coor_Distribution_Dataset_Generator.__new__(data.Coor_Distribution_Dataset_Generator)
    source.args, source.with_edge, source.embedding_indices_list = args, False, list(index)
    model = known.Coor_Distribution(args, (SIDE, SIDE), MEMORY)
    saved: list[np.ndarray] = []
    known.np = SimpleNamespace(**{**vars(np), "save": lambda _, array: saved.append(array)})
    pairs = (source[number] for number in range(len(source)))
    model.fit((torch.from_numpy(place)[None], torch.tensor([at])) for place, at in pairs)
    known.np = np
    return saved[0]


def cut(data: Any, args: Any, table: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Their neighbourhoods of the features (N, h, w, D), and which class each is to be told as."""
    source = data.Distribution_Dataset_Generator.__new__(data.Distribution_Dataset_Generator)
    reach = args.dist_padding
    source.args, source.dist_padding, source.embedding_indices_list = args, reach, list(index)
    source.embedding_pad_list = list(np.pad(table, ((0,), (reach,), (reach,), (0,)), "constant"))
    pairs = [source[number] for number in range(len(source))]
    return np.stack([row for row, _ in pairs]), np.array([at for _, at in pairs])


def main(checkout: str) -> None:
    sys.path.insert(0, str(Path(checkout).resolve()))
    replace_modules()
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign]
    import utils.data.load_data as data
    import utils.learning.train_part as known
    from utils.learning.model import Distribution_Model

    args = SimpleNamespace(
        patchsize=5, dist_padding=4, dist_coreset_size=CLASSES, num_layers=3, subsampling_percentage=0.01,
        embedding_dir_path="", anomaly_nn=1, softmax_temperature_alpha=2.0, softmax_nb_gamma=0.5 * 5,
        softmax_coor_gamma=0.5, prob_gamma=0.99, imagesize=SIZE, blursigma=8.0,
    )  # fmt: skip
    table = features([(SIDE, SIDE, DIM)], IMAGES, SEED)[0].float().numpy()
    memory = features([(DIM,)], MEMORY, SEED + 1)[0].float().numpy()
    embedding, classes = Index(memory), Index(memory[:CLASSES])
    rows = table.reshape(-1, DIM)
    places = (IMAGES, SIDE, SIDE)
    histogram = counted(known, data, args, embedding.search(rows, 1)[1].reshape(places))
    neighbourhoods, target = cut(data, args, table, classes.search(rows, 1)[1].reshape(places))

    network = Distribution_Model(args, neighbourhoods.shape[1], CLASSES)
    fill(nn.Sequential(*network.first_layer, *(layer for part in network.hidden_layers for layer in part),
                       *network.last_layer), SEED)  # fmt: skip
    model = known.AC_Model.__new__(known.AC_Model)
    nn.Module.__init__(model)
    model.args, model.patch_maker, model.dist_model = args, None, network.eval()
    model.inv_normalize, model.img_path_list = (lambda images: images), []
    model.dist_coreset_index, model.embedding_coreset_index_cpu = classes, embedding
    model.embedding_coreset_index = model.embedding_coreset_with_edge_index = embedding
    model.embedding_coreset_with_edge_index_cpu = embedding
    model.coor_dist_model = model.coor_dist_model_with_edge = histogram
    model.emb_to_dist = np.int32(classes.search(memory, 1)[1])
    model.init_results_list()
    maps: list[np.ndarray] = []
    model.save_anomaly_map = lambda found, *rest: maps.append(found) if rest[4] == "amap_nb_coor" else None
    model.forward = lambda images: int(images[0, 0, 0, 0])
    known.generate_embedding_features = lambda _, number, __: (
        torch.from_numpy(table[number]).flatten(0, 1),
        (SIDE, SIDE),
    )
    with torch.no_grad():
        for number in range(IMAGES):
            image = torch.full((1, 3, SIZE, SIZE), float(number))
            model.test_step((image, torch.zeros(1, 1, SIZE, SIZE), torch.tensor([0]), ["a"], ["good"]), 0)
        logits = network(torch.from_numpy(neighbourhoods))
    np.savez_compressed(
        OUT,
        sizes=np.array([IMAGES, SIDE, DIM, MEMORY, CLASSES, SEED]),
        histogram=histogram.reshape(SIDE, SIDE, MEMORY)[2:-2, 2:-2],
        neighbourhoods=neighbourhoods[::37],
        target=target,
        logits=logits.numpy()[::3],
        maps=np.stack(maps)[:, ::5, ::7],
        scores=np.array(model.pred_list_img_lvl_nb_coor),
    )
    likely = (logits / 2).softmax(1) > args.softmax_nb_gamma / MEMORY
    print(f"{OUT}: {OUT.stat().st_size} bytes; classes likely {likely.float().mean():.2f}; scores", end=" ")
    print(model.pred_list_img_lvl_nb_coor, model.pred_list_img_lvl_nb, model.pred_list_img_lvl_patchcore)


if __name__ == "__main__":
    main(sys.argv[1])
