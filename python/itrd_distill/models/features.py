"""What a model shows of itself beside its logits."""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """stages: feature maps (n, c, h, w), first to last; penultimate (n, d): what the last linear layer reads."""

    stages: tuple[Tensor, ...]
    penultimate: Tensor
