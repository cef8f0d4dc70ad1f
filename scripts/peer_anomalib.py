"""anomalib on decoded images that bench_cell.py hands over; runs in its own environment, without adbench.

    PEER/bin/python scripts/peer_anomalib.py FILE.json

The file holds `task` (embed, score, engine) and its arguments, and afterwards the answer. `folder` holds
train.npy and test.npy, uint8 (N, H, W, 3), masks.npy (N, H, W), labels.npy (N,) and, for padim, picked.npy,
the channels; arrays go there too.
"""

import json
import resource
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from anomalib.data import Folder, ImageBatch  # noqa: E402
from anomalib.engine import Engine  # noqa: E402
from anomalib.metrics import AUPR, AUPRO, AUROC, F1Max  # noqa: E402
from anomalib.models import Padim, Patchcore  # noqa: E402
from anomalib.models.components import KCenterGreedy  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

IMPORTED = time.perf_counter() - BEGAN
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
LAYERS = {"patchcore": ["layer2", "layer3"], "padim": ["layer1", "layer2", "layer3"]}


class Clock:
    """Seconds of what came since the last question."""

    def __init__(self):
        self.start = time.perf_counter()

    def lap(self):
        now = time.perf_counter()
        took, self.start = now - self.start, now
        return took


def peak():
    """Resident bytes of this process at their highest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def model_of(method, backbone, weights, **settings):
    """anomalib's Lightning model with the weights of the file; all else is its default."""
    torch.manual_seed(0)
    kind = {"patchcore": Patchcore, "padim": Padim}[method]
    made = kind(backbone=backbone, layers=LAYERS[method], pre_trained=False, **settings)
    network, file = made.model.feature_extractor.feature_extractor, load_file(weights)
    network.load_state_dict({key: file[key] for key in network.state_dict() if key in file}, strict=True)
    return made


def batches(images, size):
    """uint8 (N, H, W, 3) -> normalised (B, 3, H, W)."""
    for first in range(0, len(images), size):
        part = torch.from_numpy(np.array(images[first : first + size])).permute(0, 3, 1, 2)
        yield (part.float() / 255 - MEAN) / STD


def embed(folder, method, backbone, weights, batch, ratio, picks):
    """Fit: patchcore to the coreset (`picks` of it, or all where null), padim whole, and score with it.

    Leaves embedding.npy and projected.npy (patchcore), bank.npy where the whole coreset was chosen.
    """
    home, clock, answer = Path(folder), Clock(), {}
    model = model_of(method, backbone, weights, **({"coreset_sampling_ratio": ratio} if ratio else {})).model
    model.train()
    if method == "padim":
        model.idx = torch.from_numpy(np.load(home / "picked.npy"))  # the same channels
    clock.lap()
    with torch.no_grad():
        for images in batches(np.load(home / "train.npy", mmap_mode="r"), batch):
            model(images)
    answer["embed"] = clock.lap()
    if method == "padim":
        model.fit()
        answer["fit"] = clock.lap()
        torch.save(model.state_dict(), home / "state.pt")
        return answer
    rows = torch.vstack(model.embedding_store)
    sampler = KCenterGreedy(embedding=rows, sampling_ratio=ratio)
    answer |= {"patches": len(rows), "coreset_size": sampler.coreset_size}
    clock.lap()
    sampler.model.fit(rows)
    sampler.model.transform(rows)
    answer["projection"] = clock.lap()
    if picks is not None:
        sampler.coreset_size = min(picks, sampler.coreset_size)
    chosen = sampler.select_coreset_idxs()
    answer["coreset"] = clock.lap()  # projects again, as `fit` does
    answer["chosen"] = chosen
    np.save(home / "embedding.npy", rows.numpy())
    np.save(home / "projected.npy", np.asarray(sampler.features))
    if len(chosen) == answer["coreset_size"]:
        np.save(home / "bank.npy", rows[chosen].numpy())
    return answer


@torch.no_grad()
def score(folder, method, backbone, weights, batch):
    """Predict with bank.npy or state.pt, then anomalib's metrics; leaves scores.npy and maps.npy."""
    home, answer = Path(folder), {}
    model = model_of(method, backbone, weights).model.eval()
    if method == "patchcore":
        model.memory_bank = torch.from_numpy(np.load(home / "bank.npy"))
    else:
        model.load_state_dict(torch.load(home / "state.pt"))
    clock = Clock()
    found = [model(images) for images in batches(np.load(home / "test.npy", mmap_mode="r"), batch)]
    scores = torch.cat([one.pred_score for one in found]).flatten()
    maps = torch.cat([one.anomaly_map for one in found])
    answer["predict"], answer["peak_before_metrics"] = clock.lap(), peak()
    np.save(home / "scores.npy", scores.numpy())
    np.save(home / "maps.npy", maps[:, 0].numpy())
    labels, masks = (torch.from_numpy(np.load(home / f"{name}.npy")) for name in ("labels", "masks"))
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    kinds = {"AUROC": AUROC, "AUPR": AUPR, "F1-max": F1Max, "AUPRO": AUPRO}
    metrics = {f"image {name}": kinds[name](fields=image) for name in ("AUROC", "F1-max")}
    metrics |= {f"pixel {name}": kinds[name](fields=pixel) for name in kinds}
    squeezed = [(one - one.min()) / (one.max() - one.min()) for one in (scores, maps)]  # what it takes
    clock.lap()
    for first in range(0, len(labels), batch):
        part = slice(first, first + batch)
        given = ImageBatch(
            image=torch.zeros(len(labels[part]), 3, *maps.shape[-2:]),
            pred_score=squeezed[0][part],
            anomaly_map=squeezed[1][part],
            gt_label=labels[part],
            gt_mask=masks[part].int(),
        )
        for metric in metrics.values():
            metric.update(given)
    answer["values"] = {name: float(metric.compute()) for name, metric in metrics.items()}
    answer["metrics"] = clock.lap()
    return answer


def engine(folder, method, backbone, weights, batch, ratio, workers):
    """Engine.fit and Engine.test on a Folder of PNG files; by its defaults half of the test set validates."""
    home, root = Path(folder), Path(folder) / "files"
    labels, masks = np.load(home / "labels.npy"), np.load(home / "masks.npy")
    for name in ("train", "good", "bad", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(np.load(home / "train.npy", mmap_mode="r")):
        Image.fromarray(np.array(pixels)).save(root / "train" / f"{number:04}.png")
    for number, pixels in enumerate(np.load(home / "test.npy", mmap_mode="r")):
        Image.fromarray(np.array(pixels)).save(root / ("good", "bad")[labels[number]] / f"{number:04}.png")
        if labels[number]:
            Image.fromarray(masks[number].astype(np.uint8) * 255).save(root / "masks" / f"{number:04}.png")
    data = Folder(
        name="images",
        root=root,
        normal_dir="train",
        normal_test_dir="good",
        abnormal_dir="bad",
        mask_dir="masks",
        train_batch_size=batch,
        eval_batch_size=batch,
        num_workers=workers,
    )
    model = model_of(method, backbone, weights, **({"coreset_sampling_ratio": ratio} if ratio else {}))
    runner = Engine(default_root_dir=home / "engine", accelerator="cpu", devices=1)
    clock, answer = Clock(), {}
    runner.fit(model=model, datamodule=data)
    answer["fit"] = clock.lap()
    found = runner.test(model=model, datamodule=data)
    answer |= {"test": clock.lap(), "values": {name: float(value) for name, value in found[0].items()}}
    return answer


def main():
    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    after_import = peak()
    answer = {"embed": embed, "score": score, "engine": engine}[given.pop("task")](**given)
    answer |= {"import": IMPORTED, "peak_after_import": after_import, "peak": peak()}
    file.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
