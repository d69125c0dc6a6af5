"""The mutual-information loss of (cosine + c)^p (section 4.2 of the paper); parameters c ≥ 0 and p = 1, 2 or 3."""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.losses.mutual_information import coefficients as mutual_information_coefficients
from itrd_kernels.backends.triton.losses.mutual_information import entries as mutual_information_entries
from itrd_kernels.backends.triton.losses.mutual_information import factored
from itrd_kernels.backends.triton.losses.pair import PairInput, PairLoss, PairTerms
from itrd_kernels.schema import PairTraits


@triton.jit
def _kernel(g, c, p):
    """κ(g) = (g + c)^p and its derivative."""
    x = g + c
    square = x * x
    value = tl.where(p < 2, x, tl.where(p < 3, square, square * x))
    return value, tl.where(p < 2, 1.0, tl.where(p < 3, 2 * x, 3 * square))


@triton.jit
def entries(x):
    """L_mi of G = κ(g) where neither row is zero, else 0."""
    g, slope_s = _kernel(x.g, x.parameters_0, x.parameters_1)
    h, slope_t = _kernel(x.h, x.parameters_0, x.parameters_1)
    of = mutual_information_entries(
        PairInput(
            x.own_s * x.other_s * g, x.own_t * x.other_t * h, x.own_s, x.own_t, x.other_s, x.other_t,
            x.first, x.second, x.parameters_0, x.parameters_1,
        )
    )  # fmt: skip
    # W of L_mi has G of its side as a factor, which is 0 where a row is zero.
    return PairTerms(of.first, of.second, of.w_s * slope_s, of.w_t * slope_t, of.row_s, of.row_t)


@triton.jit
def coefficients(m_s, m_st, c, p):
    """Those of L_mi for traces m_s κ(1) and m_st κ(1)²."""
    one, _ = _kernel(1.0, c, p)
    return mutual_information_coefficients(m_s * one, m_st * one * one, c, p)


LOSS = PairLoss(PairTraits(parameters=2, one_sided=False), entries, coefficients, factored, pressure="medium")
