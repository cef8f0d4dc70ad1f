"""Writes tests/methods/fixtures/draem.npz by running the authors' code on seeded weights and images.

Needs a checkout of VitjanZ/DRAEM at 2dbf673: python scripts/make_draem_fixture.py CHECKOUT
Double precision. The networks are narrow, 2 channels at full size, to keep the file small: the authors'
constructors take the width. The noise is that of perlin.py from the angles that NumPy draws under a seed.
SSIM and the score's mean filter are called as train_DRAEM.py and test_DRAEM.py do, without their .cuda().
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "draem.npz"
SIZE, BASE, COUNT = 64, 2, 2
CELLS = (4, 8)


def pictures() -> torch.Tensor:
    """Drawn images with structure at several scales, in [0, 1]."""
    scales = [torch.rand(COUNT, 3, side, side) for side in (2, 4, 8, 16, SIZE)]
    wide = [torch.nn.functional.interpolate(one, size=SIZE, mode="bilinear") for one in scales]
    return torch.stack(wide).mean(0)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    from loss import FocalLoss, create_window, ssim
    from model_unet import DiscriminativeSubNetwork, ReconstructiveSubNetwork
    from perlin import rand_perlin_2d_np

    torch.manual_seed(1)
    restore = ReconstructiveSubNetwork(in_channels=3, out_channels=3, base_width=BASE)
    segment = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_channels=BASE)
    images, spoilt = (pictures() * 255).byte(), (pictures() * 255).byte()
    masks = torch.rand(COUNT, 1, SIZE, SIZE) > 0.7
    clean, dirty = images.double() / 255, spoilt.double() / 255

    for network in (restore, segment):
        for value in network.parameters():  # no norm at its start, and few ReLUs without any output
            value.data += (0.1 if value.ndim > 1 else 0.5) * torch.randn(value.shape).abs()
    for value in list(segment.parameters())[
        -2:
    ]:  # logits near 0, where the focal loss's smoothing counts little
        value.data *= 0.3
    with torch.no_grad():
        for _ in range(200):  # with other statistics than the images' own the map would be flat or saturated
            segment(torch.cat((restore(dirty.float()), dirty.float()), dim=1))
    arrays: dict[str, np.ndarray] = {}
    for name, network in (("restore", restore), ("segment", segment)):
        for value in network.state_dict().values():  # what float16 holds exactly
            if value.is_floating_point():
                value.copy_(value.half())
        kept = [value.flatten() for key, value in network.state_dict().items() if "num_batches" not in key]
        arrays[f"{name}_weights"] = torch.cat(kept).half().numpy()
        network.double()
    arrays |= {"images": images.numpy(), "spoilt": spoilt.numpy(), "masks": np.packbits(masks.numpy())}

    restore.eval()
    segment.eval()
    with torch.no_grad():
        restored = restore(dirty)
        maps = torch.softmax(segment(torch.cat((restored, dirty), dim=1)), dim=1)[:, 1:]
        smoothed = torch.nn.functional.avg_pool2d(maps, 21, stride=1, padding=21 // 2)
    assert maps.std() > 0.03, "a flat or saturated map would prove nothing"
    arrays |= {"maps": maps[:, 0, ::3, ::3].numpy(), "scores": smoothed.amax((1, 2, 3)).numpy()}

    restore.train()
    segment.train()
    restored = restore(dirty)
    found = torch.softmax(segment(torch.cat((restored, dirty), dim=1)), dim=1)
    window = create_window(11, 3).double()
    parts = [
        torch.nn.functional.mse_loss(restored, clean),
        1.0 - ssim(restored, clean, window=window)[0],
        FocalLoss()(found, masks.double()),
    ]
    sum(parts).backward()
    gradients = [one.grad for network in (restore, segment) for one in network.parameters()]
    arrays["losses"] = np.array([part.item() for part in parts])
    arrays["gradients"] = np.array([[one.norm(), one.flatten()[0], one.flatten()[-1]] for one in gradients])
    assert restored.min() > -0.5, "the authors' SSIM would take another range"

    np.random.seed(0)  # noqa: NPY002  the authors' code draws from it
    arrays["angles"] = 2 * np.pi * np.random.rand(CELLS[0] + 1, CELLS[1] + 1)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002  the authors' code draws from it
    arrays["noise"] = rand_perlin_2d_np((SIZE, SIZE), CELLS)

    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
