"""What a pair loss says of each pair of rows, as whole matrices: the readable twin of the backends' tile functions."""

from typing import NamedTuple

from torch import Tensor


class Entries(NamedTuple):
    """Of every pair (i, j), each (n, m).

    Attributes:
        first, second: what row i adds to the two sums of `gram`.
        w_s, w_t: W = ¼ (∂ℓ_ij/∂g + ∂ℓ_ji/∂g) of student and teacher, so that ∂L/∂ẑ_i = 4 Σ_j W_ij ẑ_j.
        row_s, row_t: what row i adds to its row sums; None where the loss has none.
    """

    first: Tensor
    second: Tensor
    w_s: Tensor
    w_t: Tensor
    row_s: Tensor | None = None
    row_t: Tensor | None = None
