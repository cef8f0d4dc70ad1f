"""The method of a fit, made from its settings; its backbones are copies of those that the process keeps.

To build a network and read its weights takes 0.1 s (ResNet-18) to 0.5 s (Wide ResNet-50), a copy a tenth of
that or less, and the cells of a sweep mostly share one. This does not stand in parts/backbone.py, because the
source of a part belongs to the fingerprint of every method that uses it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ad_bench.config import BACKBONE, backbones
from ad_bench.contract import Method
from ad_bench.parts.weights import Weights, find_weights

KEPT = 2  # backbones on the host, each as large as the layers in use: 100 MB for a Wide ResNet-50
_kept: dict[tuple[Any, ...], nn.Module] = {}
_origins: WeakKeyDictionary[nn.Module, tuple[Any, ...]] = WeakKeyDictionary()


def build(model: DictConfig) -> Method:
    """The method of a `model` node. Raises what its constructor raises."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    model = copy.deepcopy(model)
    OmegaConf.set_readonly(model, False)
    for node in backbones(model):
        node._target_ = f"{__name__}.{backbone.__name__}"
    try:
        method: Method = instantiate(model)
    except InstantiationException as error:  # Hydra's wrapping hides which error it was
        raise error.__cause__ or error from None
    return method


def backbone(name: str, layers: Sequence[int], weights: str | None = None) -> nn.Module:
    """A Backbone of the caller's own: a copy of a kept one while its file is the same, else made anew."""
    from hydra.utils import get_class

    before = _identity(find_weights(name, weights))
    key = (name, tuple(layers), weights, before)
    made = _kept.pop(key, None)
    if made is None:
        made = get_class(BACKBONE)(name=name, layers=layers, weights=weights)
        if _identity(made.weights) != before:  # replaced meanwhile: which of the two was read is not known
            return made
    _kept[key] = made  # at the end: the first is the one that was not asked for longest
    if len(_kept) > KEPT:
        del _kept[next(iter(_kept))]
    copied = copy.deepcopy(made)
    _origins[copied] = name, before
    return copied


def origin(network: nn.Module) -> tuple[Any, ...] | None:
    """Of a network that `backbone` gave: what else has the same computes the same; of any other None."""
    return _origins.get(network)


def _identity(weights: Weights) -> tuple[Any, ...]:
    """What another file, or a changed one, differs in."""
    if weights.path is None:
        return (weights.source,)
    stat = weights.path.stat()
    # Nobody can set a ctime: a change of the same size that puts the mtime back is seen too.
    return str(weights.path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
