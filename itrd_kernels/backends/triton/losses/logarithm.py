"""log(p/q), and what p log(p/q) exceeds p − q by, to full precision however little p and q differ.

Of plain arithmetic: what the compilers make of `tl.log` has branches, between which a tile's values pile up and spill.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.numerics import LN2, exponent, power_of_two


@triton.jit
def log_ratio(p, q, difference):
    """(λ, pλ − (p − q)) with λ = log(p/q) of p, q > 0, whose difference p − q is given where it is known better."""
    # p = s q (1 + t)/(1 − t) with a power of two s, and |t| < 0.172; s = 1 where p and q differ little
    scale = power_of_two(1.4142135 * (p / q))
    scaled = scale * q
    rest_of_p = tl.where(scale == 1, difference, p - scaled)
    t = rest_of_p / (p + scaled)
    log_scale = exponent(scale) * LN2
    beyond = p * log_scale + (q - scaled)
    # log(p/(s q)) = 2t (1 + rest), rest = t²/3 + t⁴/5 + …
    TERMS: tl.constexpr = 9 if difference.dtype == tl.float64 else 4
    square, rest = t * t, tl.zeros_like(t)
    for k in tl.static_range(TERMS, 0, -1):
        rest = (rest + 1 / (2 * k + 1)) * square
    # p log(p/(s q)) − (p − s q) = (p − s q) (t + (1 + t) rest)
    excess = rest_of_p * (t + (1 + t) * rest) + beyond
    return log_scale + 2 * t * (1 + rest), excess
