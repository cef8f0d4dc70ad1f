"""Writes tests/metrics/compat_reference.json by running the code of other projects on made maps.

Needs checkouts of M-3LAB/open-iad at 05044fe and zhangzjn/ADer at 902937a, and numpy<2, scikit-learn,
scikit-image, opencv-python, numba, tensorboardX and ADEval 1.1.0:
python scripts/make_compat_fixture.py OPEN_IAD ADER
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "metrics" / "compat_reference.json"
CASES: list[dict[str, Any]] = [
    {"seed": 1, "kind": "plain", "dtype": "float32", "images": 8, "size": [64, 64]},
    {"seed": 2, "kind": "plain", "dtype": "float64", "images": 5, "size": [37, 53]},
    {"seed": 16, "kind": "fortieths", "dtype": "float32", "images": 6, "size": [48, 48]},
    {"seed": 16, "kind": "fortieths", "dtype": "float64", "images": 6, "size": [48, 48]},
    {"seed": 3, "kind": "edges", "dtype": "float32", "images": 6, "size": [48, 48]},
    {"seed": 4, "kind": "coarse", "dtype": "float32", "images": 6, "size": [48, 48]},
    {"seed": 5, "kind": "heavy", "dtype": "float32", "images": 8, "size": [64, 64]},
    {"seed": 6, "kind": "heavy", "dtype": "float64", "images": 8, "size": [64, 64]},
    {"seed": 7, "kind": "capped", "dtype": "float32", "images": 6, "size": [48, 40]},
    {"seed": 8, "kind": "shifted", "dtype": "float32", "images": 6, "size": [48, 40]},
    {"seed": 9, "kind": "specks", "dtype": "float32", "images": 5, "size": [40, 40]},
    {"seed": 10, "kind": "plain", "dtype": "float64", "images": 3, "size": [6, 7]},
    {"seed": 11, "kind": "perfect", "dtype": "float32", "images": 6, "size": [40, 40]},
]


def made(case: dict[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps (H, W) of the case's type and bool masks; the first two images are normal.

    Only draws of integers and uniforms and exactly rounded operations: alike under every NumPy and machine.
    """
    rng = np.random.default_rng(case["seed"])
    height, width = case["size"]
    maps, masks = [], []
    for image in range(case["images"]):
        mask = np.zeros((height, width), bool)
        if case["kind"] == "specks":  # many regions, single pixels and such as touch by their corners alone
            mask = rng.random((height, width)) < 0.06
            mask[:, : width // 3] = False
        for _ in range(rng.integers(1, 5)):
            top, left = rng.integers(height), rng.integers(width)
            mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
        if image < 2:
            mask[:] = False
        values = sum(rng.random((height, width)) for _ in range(4)) + mask * (0.2 + 2.0 * rng.random())
        if (
            case["kind"] == "fortieths"
        ):  # once stretched to 0..1, every other score is one of ADer's thresholds
            values = np.clip(np.rint(values * 8), 0, 40) / 40
            values[0, :2] = 0, 1
        elif case["kind"] == "edges":  # every other score is next to an edge of ADer's 50 strips
            values = np.clip(np.rint(values * 20), 0, 100) / 100 * 0.7 + 1.3
            values[0, :2] = 1.3, 2.0
        elif case["kind"] == "coarse":
            values = np.floor(values * 2)
        elif case["kind"] == "heavy":
            values = 1 / (1.0 - values / 6.3) / (1.02 - rng.random((height, width)))
        elif case["kind"] == "capped":  # many pixels share the highest score
            values = np.minimum(values, 2.6)
        elif case["kind"] == "shifted":  # few digits are left, so the order of operations shows
            values = values / 100 + 7.3
        elif case["kind"] == "perfect":
            values = mask.astype(float)
        maps.append(values.astype(case["dtype"]))
        masks.append(mask)
    return maps, masks


def fingerprint(maps: list[np.ndarray], masks: list[np.ndarray]) -> int:
    """Tells whether the maps are those that the stored values were computed from."""
    return zlib.crc32(b"".join(item.tobytes() for item in [*maps, *masks]))


def imiad(checkout: Path, maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    """As CalMetric.cal_metric calls them; the class itself imports all of open-iad."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    spec = importlib.util.spec_from_file_location("au_pro", checkout / "metric" / "mvtec3d" / "au_pro.py")
    assert spec is not None
    assert spec.loader is not None
    au_pro = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(au_pro)
    truth = [mask.astype(np.float32) for mask in masks]
    label, score = [int(mask.any()) for mask in masks], [float(item.max()) for item in maps]
    flat_truth, flat = np.array(truth).flatten(), np.array(maps).flatten()
    return {
        "image_auroc": roc_auc_score(label, score),
        "image_aupr": average_precision_score(label, score),
        "pixel_auroc": roc_auc_score(flat_truth, flat),
        "pixel_aupr": average_precision_score(flat_truth, flat),
        "pixel_aupro": au_pro.calculate_au_pro(truth, maps)[0],
    }


def without_cuda() -> None:
    """Let ADEval's CUDA accumulator run on the CPU, whose histc bins by the same arithmetic."""
    import torch

    zeros, histc = torch.zeros, torch.histc
    torch.zeros = lambda *args, device=None, **kwargs: zeros(*args, **kwargs)
    torch.histc = lambda values, out, **kwargs: out.copy_(
        histc(values, **kwargs)
    )  # out may be of another type
    torch.Tensor.cuda = lambda self, **_: self


def ader(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    from util.metric import Evaluator  # of the checkout

    names = {
        "mAUROC_sp_max": "image_auroc",
        "mAP_sp_max": "image_aupr",
        "mF1_max_sp_max": "image_f1max",
        "mAUROC_px": "pixel_auroc",
        "mAP_px": "pixel_aupr",
        "mF1_max_px": "pixel_f1max",
        "mIoU_max_px": "pixel_iou",
        "mAUPRO_px": "pixel_aupro",
    }
    results = {
        "cls_names": np.array(["made"] * len(maps)),
        "imgs_masks": np.stack(masks)[:, None].astype(int),
        "anomaly_maps": np.stack(maps),
        "anomalys": np.array([mask.any() for mask in masks]).astype(int),
    }
    values = Evaluator(list(names), pooling_ks=None, use_adeval=True).run(results, "made")
    return {names[name]: float(value) for name, value in values.items()}


def main(open_iad: str, ader_checkout: str) -> None:
    import torch

    if int(np.__version__.split(".")[0]) > 1:
        raise SystemExit(
            "ADer asks for torch 2.1.2 and so for NumPy 1, which compares float32 scores with float64 "
            f"thresholds in float32; this is {np.__version__}: install 'numpy<2'"
        )
    if not torch.cuda.is_available():
        without_cuda()
    sys.path.insert(0, ader_checkout)
    cases = []
    for case in CASES:
        maps, masks = made(case)
        reference = {"imiad": imiad(Path(open_iad), maps, masks), "ader": ader(maps, masks)}
        cases.append({**case, "crc32": fingerprint(maps, masks), **reference})
    source = (
        "by running M-3LAB/open-iad at 05044fe and zhangzjn/ADer at 902937a (scripts/make_compat_fixture.py) "
        f"with ADEval {version('ADEval')}, NumPy {np.__version__}, "
        f"torch {torch.__version__.split('+')[0]} on {'CUDA' if torch.cuda.is_available() else 'a CPU'}"
    )
    OUT.write_text(json.dumps({"made": source, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
