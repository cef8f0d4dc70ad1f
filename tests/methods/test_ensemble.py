"""Ensembles against the authors' arithmetic, and against what an ensemble must not depend on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_bench.contract import Inputs, Method, Prediction, Run, TrainSet
from ad_bench.errors import UsageError
from ad_bench.methods.ensemble import Ensemble
from ad_bench.methods.patchcore import PatchCore
from tests import tiny
from tests.written_down import features


class Given(Method):
    """Scores an image by its mean and its pixels by their value, both scaled and shifted."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, maps: bool = True, power: int = 1) -> None:
        super().__init__()
        self.scale, self.shift, self.maps, self.power, self.fitted = scale, shift, maps, power, False

    def fit(self, train: TrainSet, run: Run) -> None:
        self.fitted = True

    def predict(self, inputs: Inputs) -> Prediction:
        assert self.fitted
        assert not self.training
        values = self.scale * inputs.images.mean(1) ** self.power + self.shift
        return Prediction(values.mean((1, 2)), values if self.maps else None)


def fitted(*members: Method, transductive: bool = True, train: Tensor | None = None) -> Ensemble:
    ensemble = Ensemble(list(members), transductive)
    ensemble.fit(tiny.TensorTrainSet(tiny.textures(4) if train is None else train), Run())
    return ensemble.eval()


def everything(ensemble: Ensemble, *batches: Tensor) -> Prediction:
    def asked() -> Iterator[Inputs]:
        for images in batches:
            yield Inputs(images)

    found = list(ensemble.predict_all(asked()))
    assert [len(one.scores) for one in found] == [len(images) for images in batches]
    maps = [one.maps for one in found]
    return Prediction(
        torch.cat([one.scores for one in found]),
        torch.cat([one for one in maps if one is not None]) if maps[0] is not None else None,
    )


def test_the_arithmetic_is_the_authors() -> None:
    """bin/run_patchcore.py, said in NumPy: one range of all test images for each member."""
    images = tiny.textures(7, seed=3)
    members = [Given(3.0, -1.0), Given(0.2, 5.0, power=2)]
    found = everything(fitted(*members), images[:3], images[3:])
    for which, shape in ((0, (2, 1)), (1, (2, 1, 1, 1))):
        raw = np.stack([np.asarray(one.eval().predict(Inputs(images))[which]) for one in members])
        low, high = (f(raw.reshape(2, -1), 1).reshape(shape) for f in (np.min, np.max))
        wanted = ((raw - low) / (high - low)).mean(0)
        np.testing.assert_allclose(np.asarray(found[which]), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transductive", [True, False])
def test_a_members_scale_and_unit_do_not_matter(transductive: bool) -> None:
    images = tiny.textures(5, seed=3)
    one = everything(fitted(Given(), Given(power=2), transductive=transductive), images)
    other = everything(fitted(Given(9.0, 1.0), Given(0.5, -0.1, power=2), transductive=transductive), images)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.maps, other.maps, rtol=1e-3, atol=1e-4)


FIXTURE = Path(__file__).parent / "fixtures" / "patchcore_ensemble.npz"
SHAPES = [(6, 8, 6), (10, 4, 3)]
SHARED = {"coreset_ratio": 1.0, "projection_dim": None, "starts": 1, "reweight": None, "sigma": 4.0}


class Levels(nn.Module):
    """Stands for a backbone; gives what the authors' code was given (make_patchcore_ensemble_fixture.py)."""

    def __init__(self, member: int) -> None:
        super().__init__()
        self.member, self.which = member, 1

    def forward(self, images: Tensor) -> list[Tensor]:
        two, three = features(SHAPES, len(images), self.which + 10 * self.member)
        return [(1 + self.member) * two.float(), three.float()]


def test_agrees_with_the_authors_code() -> None:
    """Scores and maps of two PatchCores that the released program put together."""
    reference = np.load(FIXTURE)
    members = [
        PatchCore(
            Levels(0), patch_size=3, pretrain_dim=40, target_dim=40, neighbors=1, backend="torch", **SHARED
        ),
        PatchCore(
            Levels(1), patch_size=5, pretrain_dim=64, target_dim=24, neighbors=3, backend="torch", **SHARED
        ),
    ]
    ensemble = fitted(*members, train=torch.zeros(3, 3, 64, 48))
    for member in members:
        member.backbone.which = 2
    found = everything(ensemble, torch.zeros(4, 3, 64, 48))
    torch.testing.assert_close(
        found.scores, torch.from_numpy(reference["scores"]).float(), rtol=1e-4, atol=1e-6
    )
    assert found.maps is not None
    maps = torch.from_numpy(reference["maps"]).float()
    torch.testing.assert_close(found.maps[:, ::9, ::7], maps, rtol=1e-4, atol=1e-6)


def test_one_member_ranks_as_alone() -> None:
    images = tiny.textures(6, seed=3)
    found = everything(fitted(Given(-4.0, 2.0)), images)
    alone = Given(-4.0, 2.0)
    alone.fitted = True
    assert torch.equal(found.scores.argsort(), alone.eval().predict(Inputs(images)).scores.argsort())
    assert (found.scores.min(), found.scores.max()) == (0, 1)
    assert found.maps is not None
    assert (found.maps.min(), found.maps.max()) == (0, 1)


def test_calibrated_on_training_images_a_score_depends_on_its_image_alone() -> None:
    """Their range is 0 to 1, what lies beyond stays beyond, and the range travels with the state."""
    train, images = tiny.textures(4), tiny.textures(3, seed=3)
    members = [Given(2.0), Given(0.5, 1.0, power=2)]
    ensemble = fitted(*members, transductive=False, train=train)
    inside = everything(ensemble, train)
    assert inside.scores.min() >= 0
    assert inside.scores.max() <= 1
    beyond = everything(ensemble, 10 * images)
    assert beyond.scores.min() > 1
    torch.testing.assert_close(ensemble.predict(Inputs(10 * images[:1])).scores, beyond.scores[:1])
    other = fitted(*members, transductive=False, train=images)
    assert not torch.allclose(everything(other, images).scores, everything(ensemble, images).scores)
    other.load_state_dict(ensemble.state_dict())
    torch.testing.assert_close(everything(other, images).scores, everything(ensemble, images).scores)


def test_a_member_that_sees_no_difference_counts_as_nothing() -> None:
    images = tiny.textures(3, seed=3)
    found = everything(fitted(Given(), Given(0.0, 5.0)), images)
    assert found.scores.isfinite().all()
    torch.testing.assert_close(found.scores, everything(fitted(Given()), images).scores / 2)


def test_maps_only_where_every_member_has_them() -> None:
    assert everything(fitted(Given(), Given(maps=False)), tiny.textures(2)).maps is None


def test_an_ensemble_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one member"):
        Ensemble([], True)
