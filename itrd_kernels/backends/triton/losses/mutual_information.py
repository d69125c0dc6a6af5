"""The mutual-information loss (Eqs. 7–9): Σ_ij (c_s G_s² − c_st G_s² G_t²)."""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.losses.pair import PairLoss, PairTerms
from itrd_kernels.backends.triton.numerics import divide_or_zero
from itrd_kernels.schema import PairTraits


@triton.jit
def mutual_information_tile(g_s, g_t, c_s, c_st):
    """(loss per pair, ∂/∂G_s and ∂/∂G_t, each over 2) of c_s G_s² − c_st G_s² G_t²."""
    w_s = g_s * (c_s - c_st * g_t * g_t)
    return w_s * g_s, w_s, -c_st * g_s * g_s * g_t


@triton.jit
def entries(x):
    """The sums are Σ G_s² (c_s − c_st G_t²), well conditioned near 0, and Σ G_s² G_t². G is 0 where a row is zero."""
    loss, w_s, w_t = mutual_information_tile(x.g, x.h, x.first, x.second)
    square_s, square_st = x.g * x.g, (x.g * x.h) * (x.g * x.h)
    loss += x.first_low * square_s - x.second_low * square_st
    none = tl.zeros_like(x.g)
    return PairTerms(loss, square_st, w_s, w_t, none, none)


@triton.jit
def coefficients(m_s, m_st, parameters_0, parameters_1):
    """(c_s, c_st) = (1/m_s², 1/m_st²), 0 where nothing is counted."""
    return divide_or_zero(1.0, m_s * m_s), divide_or_zero(1.0, m_st * m_st)


@triton.jit
def factored(c_s, c_st, parameters_0, parameters_1):
    """(c, c_s/c, c_st/c) with c the larger one."""
    # NaN > x is false, and c_s is NaN where c_st is.
    c = tl.where(c_st > c_s, c_st, c_s)
    return c, divide_or_zero(c_s, c), divide_or_zero(c_st, c)


LOSS = PairLoss(
    PairTraits(parameters=0, one_sided=False), entries, coefficients, factored, pressure="low", fits_float16=True
)
