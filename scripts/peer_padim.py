"""anomalib's PaDiM, timed on images that bench_padim.py hands over; runs in the peer's own environment.

    PEER/bin/python scripts/peer_padim.py FILE.json

FILE.json names `folder` (train.npy and test.npy, uint8 (N, H, W, 3)), `weights`, `picked`, `batch` and
`threads`; afterwards it holds the answer, in seconds, and the folder holds peer.npy: the test maps (N, H, W).
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel
from safetensors.torch import load_file

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def main():
    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    torch.set_num_threads(given["threads"])
    model = PadimModel("resnet18", ["layer1", "layer2", "layer3"], False, len(given["picked"]))
    network, weights = model.feature_extractor.feature_extractor, load_file(given["weights"])
    network.load_state_dict({key: weights[key] for key in network.state_dict() if key in weights})
    model.idx = torch.tensor(given["picked"])

    def batches(name):
        for part in torch.from_numpy(np.load(f"{given['folder']}/{name}.npy")).split(given["batch"]):
            yield (part.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD

    train, test = list(batches("train")), list(batches("test"))
    now = time.process_time if given["threads"] == 1 else time.perf_counter
    answer, start = {}, now()

    def lap(name):
        nonlocal start
        answer[name] = now() - start
        start = now()

    with torch.no_grad():
        model.train()
        network.eval()
        model.feature_extractor(train[0])
        lap("warm")
        for images in test:
            model.feature_extractor(images)
        lap("bare")
        for images in train:
            model(images)
        lap("embed")
        model.fit()
        lap("fit")
        status = Path("/proc/self/status").read_text()
        answer["peak"] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        model.eval()
        start = now()
        maps = torch.cat([model(images).anomaly_map[:, 0] for images in test])
        lap("predict")
    np.save(f"{given['folder']}/peer.npy", maps.numpy())
    file.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
