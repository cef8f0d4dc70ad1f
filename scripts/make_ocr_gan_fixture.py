"""Writes tests/methods/fixtures/ocr_gan.npz by running the authors' code on weights and images by name.

Needs a checkout of zhangzjn/OCR-GAN at 1da09d2 and OpenCV:
python scripts/make_ocr_gan_fixture.py CHECKOUT
Their layers of channel selection are made anew in every forward pass; here they get the same weights each
time. Everything is float64.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import torchvision  # noqa: F401  # before what follows: it looks for the real pandas
from seeded import fill
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "ocr_gan.npz"
IMAGES, SIDE, BASE, FEATURES = 4, 64, 4, 20
UNUSED = ("pandas", "seaborn", "matplotlib", "matplotlib.pyplot", "lib.visualizer")


class Loader(list[Any]):
    """One batch, and how many images there are."""

    dataset = range(IMAGES)


def named(judge: nn.Module) -> dict[str, Tensor]:
    """The discriminator's state by place: its names hold numbers of channels."""
    state = judge.state_dict(keep_vars=True)
    return {
        f"judge {index} {name.rpartition('.')[2]}": one for index, (name, one) in enumerate(state.items())
    }


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    import cv2
    from lib.data.datasets import FD
    from lib.models import networks, ocr_gan_aug

    from tests.written_down import pixels

    cv2.resize = lambda image, size: image  # to 256 x 256, always; ours here are smaller
    ocr_gan_aug.roc = MagicMock(return_value=0.0)
    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    torch.set_default_dtype(torch.float64)
    chosen: dict[str, nn.Module] = {}
    begin = networks.CS.__init__

    def choose(made: nn.Module, channels: int, side: int, reduction: int) -> None:
        begin(made, channels, side, reduction)
        fill({f"choose {side} {name}": one for name, one in made.state_dict().items()})
        chosen[f"choose {side}"] = made

    networks.CS.__init__ = choose
    numbers = {"batchsize": IMAGES, "isize": SIDE, "nc": 3, "nz": FEATURES, "ngf": BASE, "ndf": BASE}
    numbers |= {"ngpu": 1, "extralayers": 0, "iter": 0, "niter": 15, "niter_decay": 100, "manualseed": 1}
    numbers |= {"w_adv": 1, "w_con": 50, "w_lat": 1, "lr": 2e-4, "beta1": 0.5, "display_id": 0}
    words = {"outf": "", "name": "", "device": "cpu", "resume": "", "lr_policy": "lambda", "gpu_ids": []}
    flags = {"verbose": False, "isTrain": True, "load_weights": False, "save_test_images": False}
    model = ocr_gan_aug.Ocr_Gan_Aug(SimpleNamespace(**numbers, **words, **flags), None, "")
    for name, value in vars(model).items():
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            setattr(model, name, value.double())
    model.noise = torch.zeros(())  # there whatever the memory held

    levels = (255 * pixels(IMAGES, SIDE, 1)).round().byte()
    split = [FD(image.permute(1, 2, 0).contiguous().numpy()) for image in levels]
    high, low = (
        torch.from_numpy(np.stack([np.asarray(one) for one in part])) for part in zip(*split, strict=True)
    )
    given = [one.permute(0, 3, 1, 2) / 127.5 - 1 for one in (high, low)]
    batch = (*given, 2 * pixels(IMAGES, SIDE, 2) - 1, torch.arange(IMAGES) % 2)
    kept: dict[str, Any] = {"high": high[:2].numpy(), "low": low[:2].numpy()}

    def fresh() -> None:
        fill(model.netg.state_dict())
        fill(named(model.netd))
        chosen.clear()

    def keep(gradients: dict[str, Tensor]) -> None:
        for name, one in gradients.items():
            kept[name] = np.array([float(one.norm()), float(one.flatten()[one.numel() // 3])])

    for moment, judging in (("first epoch", True), ("later", False)):
        fresh()
        model.netg.train()
        model.netd.train(judging)
        model.set_input(batch)
        model.forward()
        model.optimizer_g.zero_grad()
        model.backward_g()
        makers = dict(model.netg.named_parameters())
        for part, one in chosen.items():
            makers |= {f"{part} {name}": value for name, value in one.named_parameters()}
        keep({f"{moment}: {name}": one.grad for name, one in makers.items()})
        model.optimizer_d.zero_grad()
        model.backward_d()
        trained = {name: one for name, one in named(model.netd).items() if one.requires_grad}
        keep({f"{moment}: {name}": one.grad for name, one in trained.items()})
        kept[f"{moment}: losses"] = np.array([model.err_g.item(), model.err_d.item()])
    fresh()
    model.data = SimpleNamespace(valid=Loader([batch]))
    model.test()
    kept["fake"] = model.fake[:, :, ::5, ::4].numpy()
    kept["features"] = torch.stack([model.feat_real, model.feat_fake]).numpy()
    kept["scaled"] = model.an_scores.numpy()
    kept["parameters"] = _parameters(networks, SimpleNamespace(**numbers, **words))
    kept["made"] = "by running zhangzjn/OCR-GAN at 1da09d2 (scripts/make_ocr_gan_fixture.py)"
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **kept)
    print(
        f"{OUT}: {OUT.stat().st_size} bytes;",
        kept["first epoch: losses"],
        kept["later: losses"],
        kept["scaled"],
    )


def _parameters(networks: Any, options: SimpleNamespace) -> list[int]:
    """How many weights the full networks have: of the generator without channel selection, of the judge."""
    options.isize, options.nz, options.ngf, options.ndf = 256, 100, 64, 64
    made = networks.define_G(options), networks.define_D(options)
    return [sum(one.numel() for one in network.parameters()) for network in made]


if __name__ == "__main__":
    main(sys.argv[1])
