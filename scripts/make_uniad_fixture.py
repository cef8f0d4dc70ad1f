"""Writes tests/methods/fixtures/uniad.npz by running the authors' code on weights and features by name.

Needs a checkout of zhiyuanyou/UniAD at a5b9d9d and einops:
python scripts/make_uniad_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from seeded import drawn, fill

OUT = Path(__file__).resolve().parents[1] / "tests" / "methods" / "fixtures" / "uniad.npz"
IMAGES, CHANNELS, GRID, JITTER = 3, 20, (6, 5), 20.0
SIZES = {"width": 16, "heads": 2, "encoders": 2, "decoders": 2, "inner": 24, "neighbours": 3}


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    from models.reconstructions.uniad import UniAD
    from utils.criterion_helper import FeatureMSELoss

    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    network = UniAD(
        [CHANNELS],
        [16],
        GRID,
        SimpleNamespace(scale=JITTER, prob=1.0),
        SimpleNamespace(neighbor_size=(SIZES["neighbours"],) * 2, mask=(True, True, True)),
        SIZES["width"],
        "learned",
        None,
        {"method": "xavier_uniform"},
        nhead=SIZES["heads"],
        num_encoder_layers=SIZES["encoders"],
        num_decoder_layers=SIZES["decoders"],
        dim_feedforward=SIZES["inner"],
        dropout=0.0,
    )
    fill(network.state_dict())
    given = {"feature_align": drawn("features", (IMAGES, CHANNELS, *GRID))}
    with torch.no_grad():
        kept = {"maps": network.eval()(given)["pred"][:, 0, ::7, ::7].numpy()}
    noise = drawn("noise", (GRID[0] * GRID[1], IMAGES, CHANNELS))
    torch.randn = lambda shape: noise  # type: ignore[assignment]
    loss = FeatureMSELoss(1.0)(network.train()(given))
    loss.backward()
    kept["loss"] = np.array(loss.item())
    for name, one in network.named_parameters():
        assert one.grad is not None, name
        kept[f"gradient {name}"] = one.grad.flatten()[::5].numpy()
    kept |= {name: np.array(value) for name, value in SIZES.items()}
    kept |= {"images": np.array(IMAGES), "channels": np.array(CHANNELS), "grid": np.array(GRID)}
    np.savez_compressed(OUT, **kept, jitter=np.array(JITTER))  # type: ignore[arg-type]
    print(f"{OUT}: {OUT.stat().st_size} bytes; loss {loss.item():.4f}, maps up to {kept['maps'].max()}")


if __name__ == "__main__":
    main(sys.argv[1])
