"""Models by name. Every one maps images to logits, and with `return_features=True` to (logits, Features)."""

import importlib
from collections.abc import Callable
from functools import partial

from torch import nn

from itrd_distill.models.binary import BinaryResNet, SubsampleAndPad, binary_shortcut
from itrd_distill.models.convnet import ConvNet
from itrd_distill.models.deep_resnet import Basic, Bottleneck, DeepResNet
from itrd_distill.models.features import Features
from itrd_distill.models.mobilenet import MobileNetV2
from itrd_distill.models.resnet import ResNet
from itrd_distill.models.shufflenet import ShuffleV1, ShuffleV2
from itrd_distill.models.vgg import VGG
from itrd_distill.models.wide_resnet import WideResNet

__all__ = ["Features", "check_model", "create_model", "model_names"]

_NARROW, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
_VGG8 = ((64,), (128,), (256,), (512,), (512,))
_VGG13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))

# name → builder(num_classes)
_BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    # Grey 8×8 digits.
    "convnet_8_16": lambda classes: ConvNet((8, 16), classes),
    "convnet_32_64": lambda classes: ConvNet((32, 64), classes),
    # 32×32 colour images, as in the CRD benchmark.
    **{f"resnet{depth}": partial(ResNet, depth, _NARROW) for depth in (8, 14, 20, 32, 56, 110)},
    "resnet8x4": lambda classes: ResNet(8, _WIDE, classes),
    "resnet32x4": lambda classes: ResNet(32, _WIDE, classes),
    "wrn_16_1": lambda classes: WideResNet(16, 1, classes),
    "wrn_16_2": lambda classes: WideResNet(16, 2, classes),
    "wrn_40_1": lambda classes: WideResNet(40, 1, classes),
    "wrn_40_2": lambda classes: WideResNet(40, 2, classes),
    "vgg8": lambda classes: VGG(_VGG8, classes),
    "vgg13": lambda classes: VGG(_VGG13, classes),
    "MobileNetV2": lambda classes: MobileNetV2(0.5, classes),
    "ShuffleV1": ShuffleV1,
    "ShuffleV2": ShuffleV2,
    "ResNet18": lambda classes: DeepResNet(Basic, (2, 2, 2, 2), classes),
    "ResNet50": lambda classes: DeepResNet(Bottleneck, (3, 4, 6, 3), classes),
    # One-bit weights and activations, as in ReCU; resnet18A is its narrow variant, resnet8 the shallowest of its kind.
    "resnet18_1bit": lambda classes: BinaryResNet((64, 128, 256, 512), 2, binary_shortcut, classes),
    "resnet18A_1bit": lambda classes: BinaryResNet((32, 32, 64, 128), 2, binary_shortcut, classes),
    "resnet8_1bit": lambda classes: BinaryResNet((16, 32, 64), 1, SubsampleAndPad, classes),
    "resnet20_1bit": lambda classes: BinaryResNet((16, 32, 64), 3, SubsampleAndPad, classes),
    # 224×224 colour images.
    "imagenet_resnet18": lambda classes: _external().imagenet_resnet18(classes),
    "imagenet_resnet34": lambda classes: _external().imagenet_resnet34(classes),
}


def model_names() -> list[str]:
    return list(_BUILDERS)


def create_model(name: str, num_classes: int = 100) -> nn.Module:
    """A freshly initialised model; `timm/NAME` takes any of timm's.

    Raises:
        ValueError: no model has this name; the message lists those there are.
    """
    check_model("model", name)
    if name.startswith("timm/"):
        return _external().TimmModel(name.removeprefix("timm/"), num_classes)
    return _BUILDERS[name](num_classes)


def check_model(setting: str, name: str) -> None:
    """Raise the ValueError of `create_model` at once; what timm holds is looked up when a model is made."""
    if name not in _BUILDERS and not name.startswith("timm/"):
        raise ValueError(f"{setting} must be one of {', '.join(model_names())} or timm/NAME; got {name!r}")


def _external():
    """Imported where it is asked for: all other models need torch alone."""
    return importlib.import_module("itrd_distill.models.external")
