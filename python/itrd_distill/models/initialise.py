"""Initial weights as the CRD benchmark sets them."""

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Convolutions N(0, 2 / (k² · channels out)); biases of convolutions 0. Batch norms start at 1 and 0 anyway."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_linear(layer: nn.Linear) -> None:
    """Weights N(0, 0.01²), bias 0."""
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
