"""Models by name. Every one maps images to logits, and with `return_features=True` to (logits, Features)."""

from collections.abc import Callable

from torch import nn

from itrd_distill.models.convnet import ConvNet
from itrd_distill.models.features import Features

__all__ = ["Features", "create_model", "model_names"]

# name → builder(num_classes)
_BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "convnet_8_16": lambda num_classes: ConvNet((8, 16), num_classes),
    "convnet_32_64": lambda num_classes: ConvNet((32, 64), num_classes),
}


def model_names() -> list[str]:
    return list(_BUILDERS)


def create_model(name: str, num_classes: int = 100) -> nn.Module:
    """A freshly initialised model.

    Raises:
        ValueError: no model has this name; the message lists those there are.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model must be one of {', '.join(model_names())}; got {name!r}")
    return _BUILDERS[name](num_classes)
