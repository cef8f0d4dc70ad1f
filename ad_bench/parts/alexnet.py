"""AlexNet among timm's models, which lack it: torchvision's, so that `Backbone` finds `alexnet.tv_in1k`.

Importing this module registers it. Of its features, 0, 1 and 2 are what goes into the three poolings, 3 is
what leaves the last, at stride 32. No hub holds its weights under that name: torchvision's own file,
alexnet-owt-7be5be79.pth, may be given as `backbone.weights`, or be kept in the folder of weights after
`safetensors.torch.save_file(torch.load(FILE), "alexnet.tv_in1k.safetensors")`.
"""

from __future__ import annotations

from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import FeatureListNet, generate_default_cfgs, register_model
from torch import nn
from torchvision.models import AlexNet

LEVELS = ((64, 4, 1), (192, 8, 4), (256, 16, 11), (256, 32, 12))  # channels, stride, module of `features`

default_cfgs = generate_default_cfgs(
    {
        "alexnet.tv_in1k": {
            "url": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "features.0",
            "classifier": "classifier.6",
        }
    }
)


@register_model
def alexnet(
    pretrained: bool = False,
    features_only: bool = False,
    out_indices: tuple[int, ...] = (0, 1, 2, 3),
    **options: Any,
) -> nn.Module:
    """The network with random weights, or its feature maps `out_indices` alone."""
    network: Any = AlexNet()
    network.feature_info = [
        {"num_chs": channels, "reduction": stride, "module": f"features.{place}"}
        for channels, stride, place in LEVELS
    ]
    return FeatureListNet(network, out_indices, flatten_sequential=True) if features_only else network
