"""What a model shows of itself beside its logits, and the step from the last map to the logits that all share."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """stages: feature maps (n, c, h, w), first to last; penultimate (n, d): what the last linear layer reads."""

    stages: tuple[Tensor, ...]
    penultimate: Tensor


def classify(
    last: Tensor, head: nn.Module, stages: Sequence[Tensor], return_features: bool
) -> Tensor | tuple[Tensor, Features]:
    """Average `last` (n, d, h, w) over its places and apply `head`: logits, or (logits, Features)."""
    penultimate = last.mean(dim=(2, 3))
    logits = head(penultimate)
    return (logits, Features(tuple(stages), penultimate)) if return_features else logits
