"""The mutual-information loss of (cosine + c)^p (section 4.2 of the paper); parameters c ≥ 0 and p = 1, 2 or 3.

It is taken of κ(g)/κ(1) = ((g + c)/(1 + c))^p, exactly 1 on the diagonal like a cosine, where most of it may cancel.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.losses.mutual_information import coefficients as mutual_information_coefficients
from itrd_kernels.backends.triton.losses.mutual_information import entries as mutual_information_entries
from itrd_kernels.backends.triton.losses.mutual_information import factored as mutual_information_factored
from itrd_kernels.backends.triton.losses.pair import PairInput, PairLoss, PairTerms
from itrd_kernels.schema import PairTraits


@triton.jit
def _power(x, p):
    """x^p and its derivative."""
    square = x * x
    value = tl.where(p < 2, x, tl.where(p < 3, square, square * x))
    return value, tl.where(p < 2, 1.0, tl.where(p < 3, 2 * x, 3 * square))


@triton.jit
def entries(x):
    """L_mi of G = κ(g)/κ(1) where neither row is zero, else 0; the second sum is that of κ(g) itself."""
    most = 1 + x.parameters_0
    one, _ = _power(most, x.parameters_1)
    g, slope_s = _power((x.g + x.parameters_0) / most, x.parameters_1)
    h, slope_t = _power((x.h + x.parameters_0) / most, x.parameters_1)
    of = mutual_information_entries(
        PairInput(
            x.own_s * x.other_s * g, x.own_t * x.other_t * h, x.own_s, x.own_t, x.other_s, x.other_t,
            x.first, x.second, x.first_low, x.second_low, x.parameters_0, x.parameters_1,
        )
    )  # fmt: skip
    # W of L_mi has G of its side as a factor, which is 0 where a row is zero.
    w_s, w_t = of.w_s * (slope_s / most), of.w_t * (slope_t / most)
    square = one * one
    return PairTerms(of.first, square * square * of.second, w_s, w_t, of.row_s, of.row_t)


@triton.jit
def coefficients(m_s, m_st, c, p):
    """Those of L_mi for traces m_s κ(1) and m_st κ(1)²."""
    one, _ = _power(1 + c, p)
    return mutual_information_coefficients(m_s * one, m_st * one * one, c, p)


@triton.jit
def factored(c_s, c_st, c, p):
    """As for L_mi, of κ(g)/κ(1)."""
    one, _ = _power(1 + c, p)
    square = one * one
    return mutual_information_factored(c_s * square, c_st * square * square, c, p)


LOSS = PairLoss(PairTraits(parameters=2, one_sided=False), entries, coefficients, factored, pressure="medium")
