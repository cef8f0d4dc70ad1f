"""Writes tests/methods/fixtures/cutpaste.npz by running a public CutPaste on given weights and images.

Not the authors' code, which was never published. Needs a checkout of Runinho/pytorch-cutpaste at 10d8bf7 and
torchvision. Weights and images are of tests/written_down.py, the network is float64, the density float32:
python scripts/make_cutpaste_fixture.py CHECKOUT
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "cutpaste.npz"
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    import cutpaste
    import density
    import model

    from tests.written_down import fill, pixels

    mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (MEAN, STD))
    network = model.ProjectionNet(pretrained=False, head_layers=[512, 128], num_classes=3).double()
    fill(network, 1000)
    # A step on three images of each class, as in run_training.py.
    network.train()
    views = [(pixels(3, 64, seed) - mean) / std for seed in (1, 2, 3)]
    _, logits = network(torch.cat(views, dim=0))
    labels = torch.arange(len(views)).repeat_interleave(views[0].size(0))
    loss = torch.nn.CrossEntropyLoss()(logits, labels)
    loss.backward()
    used = [one.grad for one in network.parameters() if one.grad is not None]
    # The score, as in eval.py.
    network.eval()
    with torch.no_grad():
        train, tests = (network((pixels(n, 64, seed) - mean) / std)[0] for n, seed in ((12, 4), (4, 5)))
    train, tests = (torch.nn.functional.normalize(one.float(), p=2, dim=1) for one in (train, tests))
    gaussian = density.GaussianDensityTorch()
    gaussian.fit(train)
    # How many pixels it pastes: white ones, cut out of nowhere, into a black image.
    random.seed(0)
    torch.manual_seed(0)
    black, white = (Image.new("RGB", (256, 256), (grey, grey, grey)) for grey in (0, 255))
    crop = Image.Image.crop
    Image.Image.crop = lambda image, box: crop(white, box)  # type: ignore[method-assign, assignment]
    patches, scars = (
        [float((np.asarray(maker(colorJitter=None)(black)[1])[..., 0] > 0).sum()) for _ in range(1000)]
        for maker in (cutpaste.CutPasteNormal, cutpaste.CutPasteScar)
    )
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT,
        loss=loss.item(),
        gradient=np.array([float(one.flatten()[one.numel() // 3]) for one in used]),
        norms=np.array([float(one.norm()) for one in used]),
        embeddings=tests[:, ::16].numpy(),
        distances=gaussian.predict(tests).numpy(),
        parameters=sum(one.numel() for one in network.parameters()),
        patches=np.sort(patches)[::20].astype(np.float32),
        scars=np.sort(scars)[::20].astype(np.float32),
        made="by running Runinho/pytorch-cutpaste at 10d8bf7 (scripts/make_cutpaste_fixture.py)",
    )
    print("loss", loss.item(), "distances", gaussian.predict(tests).tolist())


if __name__ == "__main__":
    main(sys.argv[1])
