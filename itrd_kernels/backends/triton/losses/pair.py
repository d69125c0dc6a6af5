"""What a pair loss is asked, what it answers, and its record: the same names as in csrc/losses/pair.h."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from itrd_kernels.schema import PairTraits


class PairInput(NamedTuple):
    """Of the pairs of a tile, own rows × column rows, in the accumulator's type.

    Attributes:
        g, h: entries (BLOCK, BLOCK) of G_s and G_t, 0 where a row is zero.
        own_s, own_t: statistics (BLOCK, 1) of the own rows, 1 or 0 (zero row) where none were given, 0 for rows that
            do not count; `other_s` and `other_t` (1, BLOCK) the same of the column rows.
        first, second: the coefficients, scalars, as the loss's `factored` leaves them; `first_low` and `second_low` are
            what rounding took from them, for sums in which large terms cancel.
        parameters_0, parameters_1: the loss's parameters, 0 beyond those that it has.
    """

    g: Any
    h: Any
    own_s: Any
    own_t: Any
    other_s: Any
    other_t: Any
    first: Any
    second: Any
    first_low: Any
    second_low: Any
    parameters_0: Any
    parameters_1: Any


class PairTerms(NamedTuple):
    """What the pairs add, each (BLOCK, BLOCK), over the coefficient that is factored out, but for the row sums.

    A one-sided loss gives the part of ℓ_ij alone: of the pair seen from its own row.

    Attributes:
        first, second: to the two sums; the second, which no coefficient is in, as it is.
        w_s, w_t: W = ¼ (∂ℓ_ij/∂g + ∂ℓ_ji/∂g) of student and teacher.
        row_s, row_t: to the sums of the own row; zeros where the loss is not one-sided, which nobody reads.
    """

    first: Any
    second: Any
    w_s: Any
    w_t: Any
    row_s: Any
    row_t: Any


class PairLoss(NamedTuple):
    """A loss as the kernels take it: three device functions beside what all backends know of it.

    Attributes:
        entries: (PairInput) → PairTerms.
        coefficients: (m_s, m_st, parameters) → (first, second), float64 scalars, from counts of the column rows.
        factored: (first, second, parameters) → (c, first, second): what W and the first sum are multiplied by at their
            end, so that W stays in the range of the features' type, and the coefficients without it.
        pressure: its need of registers, "low", "medium" or "high": tests/triton/test_compiled.py fails where it spills.
        fits_float16: whether W is of order one then, so that gram.py's V is at home in float16.
    """

    traits: PairTraits
    entries: Any
    coefficients: Any
    factored: Any
    pressure: str
    fits_float16: bool = False


@triton.jit
def not_negative(x):
    """x, or 0 where it is less; NaN stays."""
    return tl.where(x < 0, 0.0, x)
