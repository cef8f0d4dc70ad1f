"""Writes tests/methods/fixtures/a_contrario.npz by running the authors' code on given weights and images.

Needs a checkout of mtailanian/nfa_anomaly_detection at f8a5cbf, torchvision, scipy and scikit-learn. All in
float64, with weights and images of tests/written_down.py, and fewer components, for its loops are slow:
python scripts/make_a_contrario_fixture.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "methods" / "fixtures" / "a_contrario.npz"
SIZE, COMPONENTS = 64, 5


def main(checkout: str) -> None:
    sys.path[:0] = [checkout, str(ROOT)]
    import detection

    from tests.written_down import fill, pixels

    torch.set_default_dtype(torch.float64)
    make = detection.models.resnet50
    detection.models.resnet50 = lambda pretrained: make()
    detector = detection.NFAResnetDetector(SIZE, COMPONENTS)
    fill(detector.resnet, 1000)
    (image,) = pixels(1, SIZE, 2)
    raw = detector._get_resnet_response(image[None])["layer1"]
    distance = detector._compute_squared_mahalanobis_distance(
        detector._decorrelate_channels(raw.clone(), COMPONENTS)
    )
    log_nfa = detection.compute_region_log_nfa([distance.numpy()], threshold=0.5)
    whole, _ = detector.detect(image[None])
    np.savez_compressed(
        OUT,
        made="by running mtailanian/nfa_anomaly_detection at f8a5cbf (scripts/make_a_contrario_fixture.py)",
        features=raw[0, ::16].numpy(),
        squares=distance[0].numpy(),
        lowest=float(log_nfa.min()),
        whole=whole.astype(np.float32),
    )
    print(raw.shape, distance.shape, log_nfa.min(), log_nfa.max(), whole.shape)


if __name__ == "__main__":
    main(sys.argv[1])
