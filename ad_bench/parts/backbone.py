"""A frozen pretrained network: images in, feature maps out."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

import ad_bench.parts.alexnet  # noqa: F401  timm knows it from here on
from ad_bench.errors import UsageError, WeightsError, closest
from ad_bench.parts.stages import Stages
from ad_bench.parts.weights import PICKLES, Weights, find_weights

BRANCHES = tuple(f"branches.{number}" for number in range(4))  # of an HRNet, at strides 4, 8, 16, 32


class Backbone(nn.Module):
    """Frozen timm network: (B, 3, H, W) in [0, 1] -> the feature maps (B, C, h, w) of `layers`.

    `name` is a timm model with the tag of its weights, `layers` are timm's feature indices: of a ResNet
    1, 2, 3 are the outputs of layer1, layer2, layer3, at strides 4, 8, 16. Of the EfficientNet family they
    may be names of stages instead, see `Stages`; of an HRNet `branches.0` to `branches.3`. `weights` as for
    `find_weights`.
    Mean, standard deviation and padding are those that the file of weights states, else timm's for the tag.
    Always in eval mode; no parameter asks for a gradient, but gradients pass through to the images.
    Weights and feature maps lie in channels-last memory, in which convolutions are about half as long.
    `precision` is the type in which the network computes; its feature maps are float32 whatever it is.
    Raises WeightsError for missing or foreign weights, UsageError for layers that the network lacks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: Sequence[int] | Sequence[str], weights: str | None = None):
        super().__init__()
        self.name = name
        self.layers: tuple[Any, ...] = tuple(layers)
        self.weights = find_weights(name, weights)
        self.network = _network(self.weights, self.layers)
        if self.weights.path is not None:
            _load(self.network, self.weights)
        self.channels, self.strides = _shapes(self.network)
        for buffer, values in _normalisation(self.weights).items():
            self.register_buffer(buffer, torch.tensor(values).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)
        self.precision = torch.float32  # a run's choice, see runtime.precision
        self.memory: Callable[[Backbone, Tensor], list[Tensor]] | None = None  # a run's: asked instead
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Stays in eval mode whatever the host does: batch statistics would change the features."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> one (B, C, h, w) for each of `layers`."""
        return self.features(images) if self.memory is None else self.memory(self, images)

    def features(self, images: Tensor) -> list[Tensor]:
        """What `forward` gives, computed now."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.precision == torch.float32:
            return self.network(images)
        with torch.autocast(images.device.type, self.precision):
            return [maps.float() for maps in self.network(images)]


def _network(weights: Weights, layers: tuple[int | str, ...]) -> Any:
    """The untrained network up to the last of `layers`, drawn under a seed that depends on the name alone."""
    model = weights.name.partition(".")[0]
    if not timm.is_model(model):
        raise WeightsError(
            f"timm {timm.__version__} has no model '{model}'.{closest(model, timm.list_models())}"
        )
    if layers and set(layers) <= set(BRANCHES):
        return _branches(weights, [BRANCHES.index(str(layer)) for layer in layers])
    if layers and all(isinstance(layer, str) for layer in layers):
        return Stages(_drawn(weights, {}), cast(Sequence[str], layers), model)
    numbers = [layer for layer in layers if isinstance(layer, int)]
    if numbers != list(layers) or numbers != sorted(set(numbers)) or not numbers or numbers[0] < 0:
        raise UsageError(f"layers are rising feature indices from 0, such as [2, 3]; got {list(layers)}")
    try:
        network = _drawn(weights, {"features_only": True, "out_indices": layers})
    except (AssertionError, IndexError, ValueError) as error:
        raise UsageError(f"'{model}' has no feature layers {list(layers)}: {error}") from error
    if tuple(network.feature_info.out_indices) != layers:
        raise UsageError(f"'{model}' gives the layers {network.feature_info.out_indices}, not {list(layers)}")
    if (
        isinstance(getattr(network, "blocks", None), nn.Sequential)
        and getattr(network, "feature_hooks", 0) is None
    ):
        # timm's EfficientNet family runs on to its last block; what no layer reads is neither loaded nor run.
        last = max(info["stage"] for info in network.feature_info.get_dicts())
        network.blocks = network.blocks[:last]
    return network


def _branches(weights: Weights, numbers: list[int]) -> Any:
    """An HRNet whose layers are its branches; timm's own have those widened by a part of the classifier."""
    model, names = weights.name.partition(".")[0], [BRANCHES[number] for number in numbers]
    if numbers != sorted(set(numbers)):
        raise UsageError(f"branches are named from the finest to the coarsest; got {names}")
    options = {"feature_location": "", "out_indices": [number + 1 for number in numbers]}  # 0 is the stem
    try:
        return _drawn(weights, {"features_only": True, **options})
    except TypeError as error:
        raise UsageError(
            f"layers={names} are those of HRNets, such as hrnet_w32; '{model}' is none"
        ) from error


def _drawn(weights: Weights, options: dict[str, Any]) -> Any:
    """timm's model with random weights."""
    if pad_type := weights.metadata.get("pad_type"):
        options = {**options, "pad_type": pad_type}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(weights.name.encode()))
        return timm.create_model(weights.name.partition(".")[0], **options)


def _shapes(network: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the layers."""
    if isinstance(network, Stages):
        return network.channels, network.strides
    return tuple(network.feature_info.channels()), tuple(network.feature_info.reduction())


def _load(network: nn.Module, weights: Weights) -> None:
    """Fill every parameter and buffer of the network from the file, which may hold more stages than that."""
    model = weights.name.partition(".")[0]
    wanted = network.state_dict()
    stages = {key.partition(".")[0] for key in wanted}
    found, foreign, misshapen = {}, [], []
    for key, value in _read(weights).items():
        # Some of timm's feature networks join the first two parts of a name, or put `model.` before it.
        names = (key, key.replace(".", "_", 1), f"model.{key}")
        name = next((name for name in names if name in wanted), None)
        if name is None:
            if key.partition(".")[0] in stages and not _cut_off(network, key):
                foreign.append(key)
        elif value.shape != wanted[name].shape:
            misshapen.append(f"{key} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}")
        else:
            found[name] = value.to(wanted[name].dtype)
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    for what, keys in (("of another shape", misshapen), ("missing", missing), ("unknown", foreign)):
        if keys:
            raise WeightsError(
                f"{weights.path} does not fit '{model}' up to the layers in use: {len(keys)} of "
                f"{len(wanted)} tensors {what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}. "
                f"Are these the weights of {model}, with timm's names?"
            )
    network.load_state_dict(found, strict=False)


def _cut_off(network: Any, key: str) -> bool:
    """Whether a key belongs to the blocks that `_network` left out."""
    stage, _, rest = key.partition(".")
    number = rest.partition(".")[0]
    return stage == "blocks" and number.isdigit() and int(number) >= len(network.blocks)


def _read(weights: Weights) -> Mapping[str, Tensor]:
    path = weights.path
    assert path is not None
    if path.suffix not in PICKLES:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is a damaged safetensors file ({error}). Fetch it again") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle that holds more than tensors and would execute code when read: refused. "
            f"Ask its author for a safetensors file, or convert it where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as weights ({error}). Use a safetensors file") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds {type(content).__name__}, not names and tensors: no state_dict")
    return content


def _normalisation(weights: Weights) -> dict[str, list[float]]:
    """`mean` and `std` of the three channels, for images in [0, 1]."""
    if "mean" in weights.metadata and "std" in weights.metadata:
        try:
            stated = {key: [float(v) for v in weights.metadata[key].split(",")] for key in ("mean", "std")}
        except ValueError as error:
            raise WeightsError(f"{weights.path} states a mean or std that is no list of numbers") from error
        if any(len(values) != 3 for values in stated.values()) or min(stated["std"]) <= 0:
            raise WeightsError(f"{weights.path} states {stated}; expected three numbers each, std above 0")
        return stated
    try:
        config = get_pretrained_cfg(weights.name, allow_unregistered=False)
    except RuntimeError:
        config = None
    if config is None and weights.source == "random":
        config = get_pretrained_cfg(weights.name.partition(".")[0])
    if config is None:
        raise WeightsError(
            f"how to normalise images for '{weights.name}' is unknown: {weights.path} states no mean and std "
            f"in its metadata, and timm {timm.__version__} knows no such tag"
        )
    return {"mean": list(config.mean), "std": list(config.std)}
