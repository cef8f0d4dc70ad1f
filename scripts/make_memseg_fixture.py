"""Writes tests/methods/fixtures/memseg.npz by running a public implementation on features of sines.

The authors of the paper published no code; this is TooTouch/MemSeg at 836bd46. Needs a checkout of it:
python scripts/make_memseg_fixture.py CHECKOUT
Its networks have fixed widths and ten million weights, so weights are sines as well; the test
writes them down again. Double precision.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "memseg.npz"
STEM, LEVELS, DEEPEST = (64, 32, 32), [(64, 16, 16), (128, 8, 8), (256, 4, 4)], (512, 2, 2)


def sines(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of [-1, 1] that depends on a name alone."""
    count = int(np.prod(shape))
    index = torch.arange(count, dtype=torch.float64)
    return torch.sin(index * 0.7371 + index**2 * 1e-4 + zlib.crc32(name.encode()) % 1000).view(shape)


def features(who: str, count: int) -> list[Tensor]:
    """Stem, three levels and the fourth stage of `count` images."""
    return [sines(f"{who}{i}", (count, *shape)).abs() for i, shape in enumerate([STEM, *LEVELS, DEEPEST])]


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    from focal_loss import FocalLoss
    from models.decoder import Decoder
    from models.memory_module import MemoryBank
    from models.memseg import MemSeg

    memory = MemoryBank(normal_dataset=[], nb_memory_sample=5)
    memory.memory_information = {f"level{i}": level for i, level in enumerate(features("memory", 5)[1:-1])}
    chosen = memory._calc_diff([level.float() for level in features("image", 3)[1:-1]]).argmin(1)

    model = MemSeg(memory, nn.Identity()).double()
    assert isinstance(model.decoder, Decoder)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 1 / np.sqrt(value[0].numel()) if value.ndim > 1 else 0.1
            value.copy_((value.ndim == 1 and name.endswith("weight")) + scale * sines(name, value.shape))
    model.feature_extractor.forward = lambda images: features("image", len(images))  # type: ignore[method-assign]
    memory._calc_diff = lambda features: nn.functional.one_hot(chosen, 5).neg()  # it sums in float32 only
    model.train()
    logits = model(torch.zeros(3, 3, 64, 64))
    found = torch.softmax(logits, 1)
    masks = (sines("masks", (3, 64, 64)) > 0.6).double()
    l1 = nn.L1Loss()(found[:, 1], masks)
    focal = FocalLoss(gamma=4, alpha=None)(found, masks)
    (0.6 * l1 + 0.4 * focal).backward()
    gradients = {
        name: [value.grad.norm().item(), value.grad.flatten()[0].item(), value.grad.flatten()[-1].item()]
        for name, value in model.named_parameters()
    }
    np.savez_compressed(
        OUT,
        chosen=chosen.numpy(),
        maps=found[:, 1, ::3, ::3].detach().numpy(),
        scores=torch.topk(torch.flatten(found[:, 1], start_dim=1), 100)[0].mean(1).detach().numpy(),
        losses=np.array([l1.item(), focal.item()]),
        names=np.array(list(gradients)),
        gradients=np.array(list(gradients.values())),
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
