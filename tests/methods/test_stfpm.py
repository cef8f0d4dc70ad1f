"""STFPM against a training and a test by the authors' code, and against what the paper says of distances."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_bench.contract import Inputs, Run
from ad_bench.methods import stfpm
from ad_bench.methods.stfpm import STFPM
from ad_bench.parts.backbone import Backbone
from ad_bench.runner.progress import Watch
from ad_bench.runner.training import Checkpoints, WatchedRun
from tests import tiny
from tests.written_down import fill, normalise_in_float64, pixels

FIXTURE = Path(__file__).parent / "fixtures" / "stfpm.npz"
SGD = partial(torch.optim.SGD, lr=0.4, momentum=0.9, weight_decay=1e-4)


def model(
    name: str = "test_resnet.r160_in1k", weights: str = "random", epochs: int = 2, share: float = 0.2
) -> STFPM:
    torch.manual_seed(0)
    return STFPM(Backbone(name, [1, 2, 3], weights), share, epochs, 32, SGD)


class Given:
    """Stands for images that were split before, given in one batch."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        yield self.images


def test_agrees_with_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, first gradient, errors on held-out images, chosen epoch and maps of a short training."""
    reference = np.load(FIXTURE)
    method = model("resnet18.tv_in1k", epochs=2).double()
    for network, seed in ((method.backbone, 1000), (method.student, 2000)):
        fill(network.network, seed)
        normalise_in_float64(network)
    tests = Inputs(pixels(1, 256, 3))

    def maps() -> Tensor:
        with torch.no_grad():
            found = method.eval().predict(tests).maps
        assert found is not None
        return found

    before = torch.from_numpy(reference["before"])
    torch.testing.assert_close(maps()[:, ::9, ::7], before, rtol=1e-6, atol=1e-12)

    found: dict[str, list[float]] = {"losses": [], "errors": []}

    class Watched(Run):
        def loss(self, value: Tensor) -> Tensor:
            found["losses"].append(value.item())
            return value

    def error(held: Given) -> float:
        found["errors"].append(measured(held))  # type: ignore[arg-type]
        return found["errors"][-1]

    measured = method.error
    monkeypatch.setattr(method, "error", error)
    monkeypatch.setattr(stfpm, "hold_out", lambda *_: (Given(pixels(2, 256, 1)), Given(pixels(1, 256, 2))))
    method.train().loss(pixels(2, 256, 1)).backward()
    gradient = [float(one.grad.flatten()[one.numel() // 3]) for one in method.student.parameters()]  # type: ignore[union-attr]
    np.testing.assert_allclose(gradient, reference["gradient"], rtol=1e-6, atol=1e-12)
    fill(method.student.network, 2000)  # the running statistics of that pass
    method.fit(tiny.TensorTrainSet(torch.zeros(4, 3, 256, 256)), Watched())
    np.testing.assert_allclose(found["losses"], reference["losses"], rtol=1e-6)
    np.testing.assert_allclose(found["errors"], reference["errors"], rtol=1e-6)
    assert int(np.argmin(reference["errors"])) == 0, "the case is one where the last epoch is not the best"
    after = torch.from_numpy(reference["after"])
    again = maps()
    torch.testing.assert_close(again[:, ::9, ::7], after, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(again.amax((1, 2)), torch.from_numpy(reference["scores"]), rtol=1e-6, atol=0)


def test_a_distance_is_2_minus_2_cosines() -> None:
    method, images = model().eval(), tiny.textures(2)
    with torch.no_grad():
        levels = zip(method.distances(images), method.backbone(images), method.student(images), strict=True)
        for distance, known, learnt in levels:
            cosine = F.cosine_similarity(known, learnt, dim=1)
            torch.testing.assert_close(distance, 2 - 2 * cosine, rtol=1e-4, atol=1e-5)
            assert distance.min() >= 0
            assert distance.max() <= 4


def test_a_student_that_equals_its_teacher_finds_nothing() -> None:
    method = model().eval()
    method.student.network.load_state_dict(method.backbone.network.state_dict())
    with torch.no_grad():
        assert method.loss(tiny.textures(2)) == 0
        assert method.predict(Inputs(tiny.textures(2))).scores.max() == 0


def test_the_map_is_a_product_at_the_first_levels_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero where any level sees nothing; the same whatever the order of the others."""
    method = model()
    first, second, third = torch.rand(1, 8, 8), torch.full((1, 4, 4), 2.0), torch.full((1, 2, 2), 0.5)
    monkeypatch.setattr(method, "distances", lambda _: [first, second, third])
    torch.testing.assert_close(method.maps(torch.empty(0)), first)
    second[0, 0, 0] = 0
    product = method.maps(torch.empty(0))
    assert product[0, 0, 0] == 0
    monkeypatch.setattr(method, "distances", lambda _: [first, third, second])
    torch.testing.assert_close(method.maps(torch.empty(0)), product)
    assert method.predict(Inputs(torch.zeros(1, 3, 32, 32))).scores.item() <= float(first.max())


def test_only_the_student_learns_and_follows_its_mode() -> None:
    method = model(epochs=1)
    teacher = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    student = {key: value.clone() for key, value in method.student.state_dict().items()}
    method.train().fit(tiny.TensorTrainSet(tiny.textures(5)), Run())
    assert all(torch.equal(value, teacher[key]) for key, value in method.backbone.state_dict().items())
    same = [key for key, value in method.student.state_dict().items() if torch.equal(value, student[key])]
    assert same == ["mean", "std"]
    method.train()
    assert (method.student.network.training, method.backbone.network.training) == (True, False)


@pytest.mark.parametrize(("images", "held"), [(1, 0), (2, 1), (12, 3)])
def test_images_held_out(images: int, held: int) -> None:
    method, notes, run = model(epochs=1), {}, Run()  # type: ignore[var-annotated]
    run.note = notes.update  # type: ignore[method-assign, assignment]
    method.fit(tiny.TensorTrainSet(tiny.textures(images)), run)
    assert notes == {"validation_images": held, "chosen_epoch": 1 if held else "last"}


@pytest.mark.parametrize("sign", [1, -1], ids=["first", "last"])
def test_a_stopped_training_goes_on_with_the_same_result(tmp_path: Path, sign: int) -> None:
    """Whether the first or the last epoch is the best: it, the order of images and the optimiser are kept."""

    def trained(folder: Path | None, stop: int | None = None) -> dict[str, Tensor]:
        method, train = model(epochs=4), tiny.TensorTrainSet(tiny.textures(12))
        method.batch_size = 3
        run = WatchedRun(0, torch.device("cpu"), Watch(1), Checkpoints(folder, 0.0) if folder else None)
        run.method, run.train = method, train  # type: ignore[assignment]

        def error(held: object) -> float:
            steps = int(method.student.network.bn1.num_batches_tracked)
            if steps == stop:
                raise InterruptedError
            return float(sign * steps)

        method.error = error  # type: ignore[method-assign]
        method.train().fit(train, run)
        return method.state_dict()

    whole = trained(None)
    with pytest.raises(InterruptedError):
        trained(tmp_path, stop=9)  # the third epoch of three steps each
    rest = trained(tmp_path)
    assert whole["student.network.bn1.num_batches_tracked"] == (3 if sign > 0 else 12)
    assert all(torch.equal(value, rest[key]) for key, value in whole.items())


def test_a_planted_defect_stands_out_under_a_trained_teacher() -> None:
    """The contract's own test has a random teacher, whose deep levels are nearly the same everywhere."""
    method = model("test_resnet.adbench", "bundled", epochs=40)
    method.train().fit(tiny.TensorTrainSet(tiny.textures(12)), Run())
    clean = tiny.textures(6, seed=11)
    broken, masks = tiny.planted(clean, seed=12)
    with torch.no_grad():
        normal, anomalous = (method.eval().predict(Inputs(images)) for images in (clean, broken))
    assert (anomalous.scores > 1.5 * normal.scores).all()
    assert anomalous.maps is not None
    for found, mask in zip(anomalous.maps, masks, strict=True):
        assert found[mask].mean() > 2 * found[~mask].mean()
