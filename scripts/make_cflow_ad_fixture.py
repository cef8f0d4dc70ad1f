"""Writes tests/methods/fixtures/cflow_ad.npz by running the authors' training on given features and weights.

Their whole `train` runs: loop, learning rates, scoring; only network, images and metrics are stand-ins. Their
backbone is run too, on one image. Needs checkouts of gudovskiy/cflow-ad at b2ebf9e and of vislearn/FrEIA at
cc5cf5e, and graphviz,
matplotlib, scikit-image, scikit-learn, scipy, timm and tqdm:
python scripts/make_cflow_ad_fixture.py CFLOW FREIA
"""

from __future__ import annotations

import math
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "cflow_ad.npz"
SHAPES = ((6, 16, 16), (5, 8, 8))
TRAIN, TEST, BATCH, CONDITION, STEPS = 8, 3, 4, 8, 3
SEED = 0 * 1_000_003 + zlib.crc32(b"positions")  # of Run(0).generator("positions")


class Images(list[Any]):
    """Stands for data set and loader: (image, label, mask), the image a number that the encoder looks up."""

    def __init__(self, first: int, count: int, batch: int):
        self.dataset = range(count)
        for start in range(0, count, batch):
            index = torch.arange(first + start, first + min(start + batch, count))
            super().append((index, torch.zeros(len(index)), torch.zeros(len(index), 1, 32, 32)))


def main(cflow_checkout: str, freia_checkout: str) -> None:
    sys.path[:0] = [cflow_checkout, freia_checkout]
    import torchvision.io

    torchvision.io.read_video = None  # gone from newer versions; only their video data set asks for it
    import model
    import train
    from custom_models.resnet import BasicBlock, ResNet

    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(TRAIN + TEST, *shape, generator=generator) for shape in SHAPES]
    found = {f"level{i}": level.numpy() for i, level in enumerate(features)}

    c = SimpleNamespace(
        class_name="given", enc_arch="given", dec_arch="freia-cflow", dataset="mvtec",
        model="given", action_type="norm-train", checkpoint="", pool_layers=2,
        coupling_blocks=STEPS, condition_vec=CONDITION,
        clamp_alpha=1.9, lr=1e-2, lr_decay_rate=0.1, lr_cosine=True, lr_warm=True, lr_warm_epochs=2,
        meta_epochs=5, sub_epochs=2, batch_size=BATCH, crp_size=(32, 32), device="cpu", use_cuda=False,
        verbose=False, hide_tqdm_bar=True, viz=False, pro=False, workers=0,
    )  # fmt: skip
    # as main.py works them out
    c.lr_warmup_from, least = c.lr / 10.0, c.lr * c.lr_decay_rate**3
    c.lr_warmup_to = least + (c.lr - least) * (1 + math.cos(math.pi * c.lr_warm_epochs / c.meta_epochs)) / 2

    np.random.seed(0)  # noqa: NPY002  scipy draws FrEIA's orthogonal matrices from it
    decoders = [model.load_decoder_arch(c, shape[0]) for shape in SHAPES]
    with torch.no_grad():
        for number, decoder in enumerate(decoders):
            for name, parameter in decoder.named_parameters():
                if "w_perm" not in name:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
                found[f"before/{number}/{name}"] = parameter.numpy().copy()
        found["codes"] = model.positionalencoding2d(CONDITION, 5, 7).numpy()

    def encoder(index: Tensor) -> None:
        for layer, level in enumerate(features):
            model.activation[f"layer{layer}"] = level[index]

    whole = SimpleNamespace(to=lambda device: SimpleNamespace(eval=lambda: encoder))
    train.load_encoder_arch = lambda *_: (whole, ["layer0", "layer1"], [shape[0] for shape in SHAPES])
    remaining = iter(decoders)
    train.load_decoder_arch = lambda *_: next(remaining)
    train.MVTecDataset = lambda c, is_train: is_train
    train.torch.utils.data.DataLoader = lambda is_train, **_: (
        Images(0, TRAIN, BATCH) if is_train else Images(TRAIN, TEST, BATCH)
    )
    maps: list[np.ndarray] = []
    train.roc_auc_score = lambda truth, score: maps.append(score) or 0.5
    likelihoods: list[Any] = []
    scored = train.test_meta_epoch

    def test_meta_epoch(*given: Any) -> Any:
        answer = scored(*given)
        likelihoods.append(answer[3])
        return answer

    train.test_meta_epoch = test_meta_epoch
    train.save_weights = train.save_results = lambda *_: None
    torch.manual_seed(SEED)
    train.train(c)
    found["scores"] = maps[-2]  # image scores and pixels take turns
    found["maps"] = maps[-1].reshape(TEST, 32, 32).astype(np.float32)
    for layer, values in enumerate(likelihoods[-1]):
        found[f"likelihood{layer}"] = np.array(values, np.float32).reshape(TEST, *SHAPES[layer][1:])
    for number, decoder in enumerate(decoders):
        for name, parameter in decoder.named_parameters():
            if "w_perm" not in name:
                found[f"after/{number}/{name}"] = parameter.detach().numpy()

    network = ResNet(BasicBlock, [2, 2, 2, 2]).eval()
    levels: list[Tensor] = []
    for stage in (network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda module, given, answer: levels.append(answer))
    network.load_state_dict({name: written_down(name, value) for name, value in network.state_dict().items()})
    with torch.no_grad():
        network(torch.sin(torch.arange(3.0 * 64 * 64)).view(1, 3, 64, 64))
    for layer, level in enumerate(levels):
        found[f"backbone{layer}"] = level[0, ::8].numpy()
    np.savez_compressed(OUT, **found)


def written_down(name: str, like: Tensor) -> Tensor:
    """Weights that anybody can write down: sines; BatchNorm stays as it begins."""
    if like.ndim < 4:
        return like
    index = torch.arange(like.numel(), dtype=torch.float64).view_as(like)
    scale = (2 / nn.init._calculate_correct_fan(like, "fan_in")) ** 0.5
    return (torch.sin(index * 0.37 + len(name)) * scale).float()


if __name__ == "__main__":
    main(*sys.argv[1:])
