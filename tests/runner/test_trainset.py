"""The training images as methods meet them: labels, masks, order, changed copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ad_bench.geometry import Geometry
from ad_bench.runner.trainset import StoredTrainSet
from ad_bench.samples import Boxes, MaskFiles, Sample

SIDE = 8


def train_set(
    tmp_path: Path, needs: Sequence[str] = (), seed: int = 0, copies=None, kinds: str = "nnmnbu"
) -> StoredTrainSet:
    """n: normal, m: with a mask, b: filled boxes, o: open ones, u: no mask is known. Image i is grey i."""
    samples = []
    for i, kind in enumerate(kinds):
        mask = None
        if kind == "m":
            path = tmp_path / f"{i}.png"
            pixels = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
            pixels[:SIDE, : SIDE // 2] = 255
            Image.fromarray(pixels).save(path)
            mask = MaskFiles((path,))
        elif kind in "bo":
            mask = Boxes(((0, 0, 2 * SIDE, SIDE),), filled=kind == "b")
        category = "nut" if i % 2 else "cap"
        samples.append(Sample(tmp_path / f"{i}", str(i), category, "train", int(kind != "n"), mask=mask))
    images = np.stack([np.full((SIDE, SIDE, 3), i, np.uint8) for i in range(len(kinds))])
    sizes = np.full((len(kinds), 2), 2 * SIDE)
    geometry = Geometry(size=(SIDE, SIDE))
    device = torch.device("cpu")
    return StoredTrainSet(samples, images, sizes, geometry, device, 4, seed, needs, copies=copies)


def seen(train: StoredTrainSet, **settings: object) -> list[int]:
    """The grey value of each image, in the order they come."""
    batches = train.batches(**settings)  # type: ignore[arg-type]
    return [round(float(image[0, 0, 0]) * 255) for batch in batches for image in batch.images]


def test_nothing_is_told_that_is_not_needed(tmp_path: Path) -> None:
    first, second = train_set(tmp_path).batches()
    assert (first.labels, first.masks, first.masked) == (None, None, None)
    assert first.category == ("", "", "", "")
    assert first.images.shape == (4, 3, SIDE, SIDE)
    assert first.images.dtype == torch.float32
    assert len(second.images) == 2


def test_labels(tmp_path: Path) -> None:
    (batch,) = train_set(tmp_path, ["labels"]).batches(batch_size=9)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0, 1, 0, 1, 1]
    assert batch.labels.dtype == torch.int64
    assert (batch.masks, batch.masked) == (None, None)


def test_masks_are_brought_to_the_input_and_said_to_be_known_or_not(tmp_path: Path) -> None:
    (batch,) = train_set(tmp_path, ["masks", "category"]).batches(batch_size=9)
    assert batch.masks is not None
    assert batch.masked is not None
    assert batch.masks.shape == (6, SIDE, SIDE)
    assert batch.masks.dtype == batch.masked.dtype == torch.bool
    assert batch.masks.flatten(1).sum(1).tolist() == [0, 0, SIDE * SIDE // 8, 0, SIDE * SIDE // 2, 0]
    assert batch.masks[2, : SIDE // 2, : SIDE // 4].all()
    assert batch.masks[4, : SIDE // 2].all()
    assert batch.masked.tolist() == [True, True, True, True, True, False]  # a normal one has no defect pixel
    assert batch.category == ("cap", "nut", "cap", "nut", "cap", "nut")
    assert batch.labels is None


def test_boxes_are_masks_only_where_they_count_as_filled(tmp_path: Path) -> None:
    (batch,) = train_set(tmp_path, ["masks"], kinds="bo").batches()
    assert batch.masks is not None
    assert batch.masked is not None
    assert batch.masked.tolist() == [True, False]
    assert batch.masks.flatten(1).any(1).tolist() == [True, False]


def test_labels_and_masks_follow_the_shuffled_images(tmp_path: Path) -> None:
    train = train_set(tmp_path, ["labels", "masks", "category"])
    rows = {}
    for batch in train.batches(batch_size=2, shuffle=True):
        assert batch.labels is not None
        assert batch.masks is not None
        assert batch.masked is not None
        for i, image in enumerate(batch.images):
            told = (int(batch.labels[i]), int(batch.masks[i].sum()), bool(batch.masked[i]), batch.category[i])
            rows[round(float(image[0, 0, 0]) * 255)] = told
    expected = [(0, 0, True), (0, 0, True), (1, 8, True), (0, 0, True), (1, 32, True), (1, 0, False)]
    assert [rows[i][:3] for i in range(6)] == expected
    assert [rows[i][3] for i in range(6)] == ["cap", "nut"] * 3


def test_order(tmp_path: Path) -> None:
    train = train_set(tmp_path, kinds="n" * 20)
    assert seen(train) == list(range(20))
    first, second = seen(train, shuffle=True), seen(train, shuffle=True)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second != list(range(20))
    assert seen(train) == list(range(20))
    again = train_set(tmp_path, kinds="n" * 20)
    assert [seen(again, shuffle=True) for _ in range(2)] == [first, second]
    assert seen(train_set(tmp_path, seed=1, kinds="n" * 20), shuffle=True) != first


def test_augment_sees_one_image_at_a_time(tmp_path: Path) -> None:
    shapes = []

    def brighter(image: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(image.shape))
        return image + 100 / 255

    assert seen(train_set(tmp_path), augment=brighter) == [100, 101, 102, 103, 104, 105]
    assert set(shapes) == {(3, SIDE, SIDE)}


def test_copies_follow_their_image_and_count(tmp_path: Path) -> None:
    train = train_set(tmp_path, ["labels", "masks"], copies=lambda image: [image, image + 50], kinds="nnn")
    assert len(train) == 6
    assert seen(train) == [0, 50, 1, 51, 2, 52]
    (batch,) = train.batches(batch_size=9)
    assert batch.masks is not None
    assert batch.labels is not None
    assert len(batch.labels) == len(batch.masks) == 6
    assert not batch.masks.any()
    with pytest.raises(ValueError, match="2 has a defect"):
        train_set(tmp_path, copies=lambda image: [image], kinds="nnm")


def test_no_images_are_no_batches(tmp_path: Path) -> None:
    empty = StoredTrainSet(
        (), np.empty((0, 5, 7, 3), np.uint8), np.empty((0, 2)), Geometry(), torch.device("cpu"), 4, 0
    )
    assert (len(empty), empty.size, list(empty.batches(shuffle=True))) == (0, (5, 7), [])


def test_a_batch_size_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        StoredTrainSet((), np.empty((0, 5, 7, 3)), np.empty((0, 2)), Geometry(), torch.device("cpu"), 0, 0)
