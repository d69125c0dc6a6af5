"""Probabilistic knowledge transfer; the formulas are derived in docs/design/mathematics.md.

With k rows that count the coefficients are 1/k³ and kε, a row's statistic is r = 1/(1 + its mean cosine), and
  kq = r_s (1 + g),  kp = r_t (1 + h),  λ = log((p + ε)/(q + ε))
  L = 1/k³ Σ_ij [k(p + ε) λ − k(p − q) − kε λ]
  W_s,ij = (r_s,i u_ij + r_s,j u_ji)/(4k³),  u = (ε − (p − q))/(q + ε);    row sums Σ_j u kq
  W_t,ij = (r_t,i x_ij + r_t,j x_ji)/(4k³),  x = λ − ε/(p + ε);            row sums Σ_j x kp
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.losses.logarithm import log_ratio
from itrd_kernels.backends.triton.losses.pair import PairLoss, PairTerms, not_negative
from itrd_kernels.schema import PairTraits


@triton.jit
def entries(x):
    """ℓ_ij of the own rows i, everything in units of 1/k; 1/k³ is factored out of the sum and W."""
    eps = x.second
    q, p = not_negative(x.own_s + x.own_s * x.g), not_negative(x.own_t + x.own_t * x.h)
    difference = p - q
    q, p = q + eps, p + eps
    log, excess = log_ratio(p, q, difference)
    # A pair with a row that does not count has no part in anything.
    counts = (x.own_s != 0) & (x.other_s != 0)
    first = tl.where(counts, excess - eps * log, 0.0)
    u, v = tl.where(counts, (eps - difference) / q, 0.0), tl.where(counts, log - eps / p, 0.0)
    # What multiplies u and x in the row sums is p and q without ε.
    row_s, row_t = u * q - eps * u, v * p - eps * v
    return PairTerms(first, tl.zeros_like(first), 0.25 * x.own_s * u, 0.25 * x.own_t * v, row_s, row_t)


@triton.jit
def coefficients(m_s, m_st, parameters_0, parameters_1):
    """(1/k³, kε), which the parameters are."""
    return parameters_0, parameters_1


@triton.jit
def factored(first, second, parameters_0, parameters_1):
    """1/k³ is common to everything but the row sums."""
    return first, tl.full((), 1.0, tl.float64), second


LOSS = PairLoss(PairTraits(parameters=2, one_sided=True), entries, coefficients, factored, pressure="high")
