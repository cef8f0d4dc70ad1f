"""Two pairs: who learns from whom, and which epoch is kept."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from ad_bench.contract import Run
from ad_bench.errors import UsageError
from ad_bench.parts.backbone import Backbone
from ad_bench.parts.matching import unit_distance
from ad_bench.parts.pairs import Pairs, Rebuilder
from tests import tiny

NAME = "test_resnet.r160_in1k"
SGD, ADAM = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.Adam, lr=1e-3)


def pairs(validation: float = 0.2, epochs: int = 1, batch_size: int = 4) -> Pairs:
    torch.manual_seed(0)
    teachers = (Backbone(name, [1, 2, 3], "random") for name in (NAME, "resnet18.tv_in1k"))
    return Pairs(*teachers, None, validation, epochs, batch_size, SGD, ADAM)  # type: ignore[arg-type, misc]


def images(count: int) -> tiny.TensorTrainSet:
    return tiny.TensorTrainSet(tiny.textures(count))


def test_six_maps_of_two_pairs() -> None:
    both, pictures = pairs().eval(), tiny.textures(2)
    with torch.no_grad():
        levels = both(pictures)
        assert [level.shape[1:] for level in levels] == [(16, 16), (8, 8), (4, 4)] * 2
        other = both.second(pictures)
        rebuilt = both.rebuilder(pictures, other)
        assert [one.shape for one in rebuilt] == [one.shape for one in other]
        torch.testing.assert_close(levels[4], unit_distance(other[1], rebuilt[1]))
        both.student.network.load_state_dict(both.first.network.state_dict())
        assert max(float(level.max()) for level in both(pictures)[:3]) == 0


def test_the_teachers_features_pass_by_attention_alone() -> None:
    """Shut, it lets nothing through; a teacher's level is seen by its own level and the finer ones."""
    torch.manual_seed(0)
    pattern = Backbone(NAME, [1, 2, 3], "random")
    rebuilder, pictures = Rebuilder(pattern, [8, 16, 24], 0.5).eval(), tiny.textures(1)
    taught = [torch.rand(1, width, side, side) for width, side in ((8, 16), (16, 8), (24, 4))]
    with torch.no_grad():
        before = rebuilder(pictures, taught)
        changed = rebuilder(pictures, [taught[0], taught[1] + 1, taught[2]])
        assert torch.equal(before[2], changed[2])
        assert not torch.equal(before[1], changed[1])
        assert not torch.equal(before[0], changed[0])
        for gate in rebuilder.attention:
            nn.init.zeros_(gate[3].weight)  # type: ignore[index]
            nn.init.constant_(gate[3].bias, -1e4)  # type: ignore[index]
        shut = rebuilder(pictures, taught)
    for level, end in zip(shut, rebuilder.ends, strict=True):
        torch.testing.assert_close(level, end.bias[None, :, None, None].expand_as(level))  # type: ignore[index]


def test_both_students_learn_and_no_teacher() -> None:
    both, run = pairs(0.25, 8, 3), Run()
    before = {key: value.clone() for key, value in both.state_dict().items()}
    losses: list[float] = []
    run.loss = lambda value: losses.append(value.item()) or value  # type: ignore[method-assign, func-returns-value]
    both.learn(images(8), run)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    after = both.state_dict()
    for part, learns in (("first.", False), ("second.", False), ("student.", True), ("rebuilder.", True)):
        moved = any(
            not torch.equal(value, before[key])
            for key, value in after.items()
            if key.startswith(part) and key.endswith("weight")
        )
        assert moved == learns, part


@pytest.mark.parametrize(("errors", "chosen"), [([3.0, 1.0, 2.0], 2), ([3.0, 2.0, 1.0], 3)])
def test_the_epoch_of_the_lowest_map_is_kept(
    errors: list[float], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, run, notes, states = pairs(epochs=3), Run(), {}, []  # type: ignore[var-annotated]
    run.note = notes.update  # type: ignore[method-assign, assignment]

    def error(*_: object) -> float:
        states.append(both.rebuilder.ends[0].weight.clone())
        return errors[len(states) - 1]

    monkeypatch.setattr(both, "error", error)
    both.learn(images(6), run)
    assert notes == {"validation_images": 2, "chosen_epoch": chosen}
    assert torch.equal(both.rebuilder.ends[0].weight, states[chosen - 1])


def test_without_held_out_images_the_last_epoch_is_kept() -> None:
    both, run, notes = pairs(validation=0), Run(), {}  # type: ignore[var-annotated]
    run.note = notes.update  # type: ignore[method-assign, assignment]
    both.learn(images(2), run)
    assert notes == {}


def test_teachers_whose_levels_differ_are_refused() -> None:
    first, rest = Backbone(NAME, [1, 2], "random"), (None, 0.2, 1, 4, SGD, ADAM)
    with pytest.raises(UsageError, match=r"strides \[4, 8\], 'test_resnet.r160_in1k' \[8, 16\]"):
        Pairs(first, Backbone(NAME, [2, 3], "random"), *rest)
    skipping = Backbone(NAME, [1, 3], "random")
    with pytest.raises(UsageError, match="each half as wide as the one before"):
        Pairs(skipping, skipping, *rest)
