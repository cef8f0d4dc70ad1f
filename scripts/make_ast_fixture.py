"""Writes tests/methods/fixtures/ast.npz by running the authors' code on given weights and features.

Needs a checkout of marco-rudolph/AST at 8c243ad, torchvision, and efficientnet_pytorch 0.6.3, which is not
run (CS-Flow's fixture has the same features). Its config.py is replaced, for images without depth and with
smaller numbers. All in float64, with weights and features of tests/written_down.py:
python scripts/make_ast_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "ast.npz"
CHANNELS, CELLS = 7, 6
SETTINGS = {
    "device": "cpu",
    "img_len": 32 * CELLS,
    "img_size": (32 * CELLS, 32 * CELLS),
    "depth_len": 8 * CELLS,
    "depth_downscale": 8,
    "map_len": CELLS,
    "extract_layer": 35,
    "mode": "RGB",
    "n_feat": CHANNELS,
    "training_mask": False,
    "eval_mask": False,
    "pre_extracted": True,
    "clamp": 1.9,
    "n_coupling_blocks": 3,
    "channels_hidden_teacher": 5,
    "channels_hidden_student": 6,
    "use_gamma": True,
    "kernel_sizes": [3, 3, 5],
    "pos_enc": True,
    "pos_enc_dim": 8,
    "asymmetric_student": True,
    "n_st_blocks": 2,
}


def gradients(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Of every parameter the norm, and one number from within."""
    found = [one.grad for one in network.parameters() if one.grad is not None]
    return {
        "norms": np.array([float(one.norm()) for one in found]),
        "gradient": np.array([float(one.flatten()[one.numel() // 3]) for one in found]),
    }


def main(checkout: str) -> None:
    config = ModuleType("config")
    vars(config).update(SETTINGS)
    sys.modules["config"] = config
    sys.path[:0] = [checkout, str(ROOT)]
    import model
    import utils

    from tests.written_down import features, fill

    torch.set_default_dtype(torch.float64)
    teacher, student = model.Model(), model.Model(nf=False, channels_hidden=6, n_blocks=2)
    del student.net.gamma  # which nothing uses
    fill(teacher.net, 1000)
    fill(student.net, 2000)
    (train,), (test,) = (features([(CHANNELS, CELLS, CELLS)], 3, seed) for seed in (1, 2))
    ones = torch.ones(3, 1, CELLS, CELLS)  # the mask of the foreground

    z, log_det = teacher(train, None)
    teacher_loss = utils.get_nf_loss(z, log_det, ones)
    teacher_loss.backward()
    of_teacher = gradients(teacher.net)
    student.train()
    answer, _ = student(train, None)
    student_loss = utils.get_st_loss(z.detach(), answer, ones)
    student_loss.backward()
    of_student = gradients(student.net)

    student.eval()
    with torch.no_grad():
        z_test, _ = teacher(test, None)
        answer, _ = student(test, None)
        scores = utils.get_st_loss(z_test, answer, ones, per_sample=True)
        pixels = utils.get_st_loss(z_test, answer, ones, per_pixel=True)
        up = torch.nn.Upsample(scale_factor=config.depth_len // CELLS, mode="bicubic", align_corners=False)
        maps = up(pixels[:, None])[:, 0]
    np.savez_compressed(
        OUT,
        made="by running marco-rudolph/AST at 8c243ad (scripts/make_ast_fixture.py)",
        z=z.detach().numpy(),
        log_det=log_det.detach().numpy(),
        teacher_loss=teacher_loss.item(),
        student_loss=student_loss.item(),
        scores=scores.numpy(),
        largest=np.max(maps.numpy(), axis=(1, 2)),
        maps=maps.numpy(),
        **{f"teacher_{name}": value for name, value in of_teacher.items()},
        **{f"student_{name}": value for name, value in of_student.items()},
    )
    print("losses", teacher_loss.item(), student_loss.item(), "scores", scores.tolist())


if __name__ == "__main__":
    main(sys.argv[1])
