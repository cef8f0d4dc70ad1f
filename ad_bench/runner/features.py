"""Features of frozen backbones that several fits of a sweep ask for, computed once.

Fits that share data, geometry and backbone run it over the same batches. What it said of a batch stays on the
host, and later fits get copies of it, until the last of these fits has run (`packs.together` says which they
are, and brings them together). Looked up are whole batches that the runner hands out as they lie in a store,
by the SHA-256 of their pixels: the same input to the same network gives the same output to the last bit. So
no result depends on this, and batches that are drawn or changed at random cost nothing. That a batch was
written to is known by torch's count of writes; those past it (through NumPy, `.data`) are not seen.

The seconds of a record are those that the fit would have taken alone: `Stopwatch` adds what was spared, and
leaves out what the memory itself takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ad_bench.contract import Batch
from ad_bench.errors import UsageError
from ad_bench.runner import timing
from ad_bench.runner.kept import origin
from ad_bench.runner.plan import Fit, Sharing
from ad_bench.runner.room import available
from ad_bench.runner.trainset import StoredTrainSet

Key = tuple[Any, ...]


class FeatureMemory:
    """Feature maps of the batches seen so far, at most `limit` bytes, first come, first kept.

    Nothing makes room for another batch: all are asked for in the same order again and again, so that what
    came last would drive out what is needed next.
    """

    def __init__(self, sharing: Sharing, limit: float) -> None:
        self.sharing, self.limit = sharing, limit
        self.bytes = 0
        self.grows: Callable[[], object] = lambda: None  # told before it takes more memory
        self.asked = self.reused = 0  # batches
        self.spared = 0.0  # seconds of them, less those that the memory took
        self._maps: dict[Key, Tensor] = {}  # by batch and layer
        self._seconds: dict[Key, float] = {}  # by batch: what the network took
        self._networks: WeakKeyDictionary[nn.Module, Key] = WeakKeyDictionary()

    def __deepcopy__(self, memo: object) -> FeatureMemory:
        return self  # a copied network has none of its own, and is not known here

    def attach(self, method: nn.Module) -> None:
        """Let the backbones of a method ask here. They are on their device, as their files say."""
        for module in method.modules():
            if origin(module) is not None:
                self._networks[module] = _state(module)
                module.memory = self  # type: ignore[assignment]

    def __call__(self, network: Any, images: Tensor) -> list[Tensor]:
        """What `network.features(images)` gives, computed or copied."""
        pixels = self._recurring(network, images)
        if pixels is None:
            return network.features(images)
        whole = timing.Stopwatch(images.device)
        laid_out = images.device, images.shape, images.stride()
        computed = origin(network), network.precision, network.layers[-1]
        batch = (hashlib.sha256(pixels.data).digest(), *laid_out, *computed)
        held = [self._maps.get((*batch, layer)) for layer in network.layers]
        known = [one for one in held if one is not None]
        self.asked += 1
        if batch in self._seconds and len(known) == len(held):
            maps = [one.to(images.device, non_blocking=True, copy=True) for one in known]
            self.reused += 1
        else:
            stopwatch = timing.Stopwatch(images.device)
            maps = network.features(images)
            self._seconds[batch] = stopwatch.seconds()
            self._keep({(*batch, layer): one for layer, one in zip(network.layers, maps, strict=True)})
        self.spared += self._seconds[batch] - whole.seconds()
        return maps

    def clear(self) -> None:
        """Give all memory back."""
        self._maps.clear()
        self._seconds.clear()
        self.bytes = 0

    def _recurring(self, network: nn.Module, images: Tensor) -> NDArray[np.uint8] | None:
        """The pixels of a batch that may be asked for again; None where it or the network was changed."""
        pixels, version = getattr(images, "recurs", (None, 0))
        usual = (
            pixels is not None
            and images._version == version
            and not images.requires_grad
            and not torch.is_autocast_enabled(images.device.type)
            and self._networks.get(network) == _state(network)
        )
        return pixels if usual else None

    def _keep(self, found: dict[Key, Tensor]) -> None:
        """Copies of those maps that other fits ask for too, all or none."""
        new = {
            key: maps.detach()
            for key, maps in found.items()
            if key[-1] in self.sharing.layers and key not in self._maps
        }
        size = sum(maps.nbytes for maps in new.values())
        if self.bytes + size > min(self.limit, available()):
            return
        self.grows()
        copies = {
            key: torch.empty_like(maps, device="cpu", pin_memory=maps.is_cuda) for key, maps in new.items()
        }
        if any(copies[key].stride() != maps.stride() for key, maps in new.items()):
            return  # a later operation might sum in another order
        for key, maps in new.items():
            copies[key].copy_(maps, non_blocking=True)
        self._maps.update(copies)
        self.bytes += size


_open: FeatureMemory | None = None  # of the fits that are being run


def begin(fit: Fit) -> None:
    """The memory of the fits that a fit shares features with, empty for the first; any other is given back.

    Raises UsageError for a limit that means nothing.
    """
    global _open
    limit = fit.config.runtime.feature_memory_gb
    if not isinstance(limit, int | float) or not limit >= 0:
        raise UsageError(
            f"runtime.feature_memory_gb={limit}: expected GB of the host's memory for the features that cells"
            " share, 0 for none"
        )
    sharing = fit.sharing if limit else None
    if _open is not None and (sharing is None or _open.sharing.group != sharing.group):
        end()
    if sharing is not None and _open is None:
        _open = FeatureMemory(sharing, 1e9 * limit)


def end() -> None:
    """Give the memory back."""
    global _open
    if _open is not None:
        _open.clear()
    _open = None


def attach(method: nn.Module) -> None:
    """Let a method's backbones use the memory, if there is one."""
    if _open is not None:
        _open.attach(method)


class Stopwatch(timing.Stopwatch):
    """Seconds as they were if each feature had been computed; how many were not."""

    def __init__(self, device: torch.device) -> None:
        self.memory = _open
        self.before = (_open.spared, _open.asked, _open.reused) if _open else (0.0, 0, 0)
        super().__init__(device)

    def seconds(self) -> float:
        """Seconds so far."""
        return super().seconds() + (self.memory.spared - self.before[0] if self.memory else 0.0)

    def batches(self) -> tuple[int, int]:
        """Batches looked up in the memory so far, and those found there."""
        if self.memory is None:
            return 0, 0
        return self.memory.asked - self.before[1], self.memory.reused - self.before[2]


class PeakMemory(timing.PeakMemory):
    """Without what the memory of features holds, which is no fit's own."""

    def __init__(self, device: torch.device) -> None:
        self.before = 0
        super().__init__(device)
        if _open is not None:
            _open.grows = self._cut

    def host(self) -> int:
        """Resident bytes of this process at their highest."""
        return max(self.before, super().host() - (_open.bytes if _open else 0))

    def _cut(self) -> None:
        self.before = self.host()
        self.restart()


class Recurring(StoredTrainSet):
    """A StoredTrainSet whose unchanged batches in name order say that they will come again."""

    def batches(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        """One pass; see contract.TrainSet."""
        start = 0
        for batch in super().batches(batch_size, shuffle, augment):
            end = start + len(batch.images)
            if not shuffle and augment is None:
                recurring(batch.images, self.images[start:end])
            yield batch
            start = end


def recurring(images: Tensor, pixels: NDArray[np.uint8]) -> Tensor:
    """The same tensor (B, 3, H, W), which says that it is made of these pixels (B, H, W, 3)."""
    images.recurs = np.ascontiguousarray(pixels), images._version  # type: ignore[attr-defined]
    return images


def _state(network: nn.Module) -> Key:
    """What changes where a method writes to a network, trains it or listens to its layers."""
    tensors = (*network.parameters(), *network.buffers())
    listening = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in network.modules())
    return (listening, *((id(one), one._version, one.requires_grad) for one in tensors))
