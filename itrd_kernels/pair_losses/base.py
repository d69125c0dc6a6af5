"""What a pair loss is to the library: a record around the operator `gram`. A leaf."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Parameters = tuple[float, ...]


class Result(NamedTuple):
    """The loss, a scalar, and its gradients as far as they are wanted (else empty), wide: float32 at least."""

    loss: Tensor
    dgram_s: Tensor
    dgram_t: Tensor


@dataclass(frozen=True)
class PairLoss:
    """A loss of pairs of rows, whose backends have a function of the tile each (csrc/losses, backends/triton/losses).

    Attributes:
        name: what tests and messages call it.
        formula: (z_s, z_t, *parameters) → the loss in plain PyTorch (formulas/), of which second derivatives are taken.
        evaluate: (sweep, z_s, z_t, *parameters) → Result. `sweep` calls the operator for all pairs of these rows, and
            takes what dispatch.gram calls loss, parameters, coefficients and statistics; without `gradients` it forms
            the sums alone. `sweep.forms_statistics` says whether it needs no statistics to be given.
    """

    name: str
    formula: Callable[..., Tensor]
    evaluate: Callable[..., Result]
