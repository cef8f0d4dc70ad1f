"""Made lists of samples for the protocols: no file is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

from ad_bench.samples import MaskFiles, Sample

Samples = dict[str, tuple[Sample, ...]]


def sample(category: str, split: str, kind: str, index: int, views: int = 1, outlined: bool = True) -> Sample:
    """`views` images in a row show one object."""
    name = f"{category}/{split}/{kind}/{index:03}.png"
    mask = MaskFiles((Path(f"/made/{category}/masks/{kind}/{index:03}.png"),))
    label = int(kind != "good")
    return Sample(
        Path("/made") / name,
        name,
        category,
        split,  # type: ignore[arg-type]
        label,
        kind,
        mask if label and outlined else None,
        f"{category}/{split}/{kind}/{index // views}" if views > 1 else None,
    )


def category(
    name: str,
    train: int = 20,
    good: int = 6,
    kinds: Mapping[str, int] | None = None,
    train_kinds: Mapping[str, int] | None = None,
    views: int = 1,
) -> tuple[Sample, ...]:
    """A category with so many images; by default three kinds of defects, 5 images each."""
    kinds = {"cut": 5, "dent": 5, "stain": 5} if kinds is None else kinds
    return (
        *(sample(name, "train", "good", i) for i in range(train)),
        *(sample(name, "train", kind, i) for kind, n in (train_kinds or {}).items() for i in range(n)),
        *(sample(name, "validation", "good", i) for i in range(2)),
        *(sample(name, "test", "good", i, views) for i in range(good)),
        *(sample(name, "test", kind, i, views) for kind, n in kinds.items() for i in range(n)),
    )


@st.composite
def data_sets(draw: st.DrawFn) -> Samples:
    """One to four categories; some lack normal or anomalous images, some have several views of an object."""
    found = {}
    for name in draw(st.lists(st.sampled_from(["nut", "cap", "bolt", "tile"]), min_size=1, unique=True)):
        counts = st.dictionaries(
            st.sampled_from(["cut", "dent", "structural_anomalies", "logical_anomalies"]), st.integers(1, 9)
        )
        found[name] = category(
            name,
            train=draw(st.integers(0, 30)),
            good=draw(st.integers(0, 5)),
            kinds=draw(counts),
            train_kinds=draw(counts),
            views=draw(st.sampled_from([1, 1, 3])),
        )
    return found
