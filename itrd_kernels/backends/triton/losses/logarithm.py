"""log(p/q), and what p log(p/q) exceeds p − q by, to full precision however little p and q differ."""

import triton
import triton.language as tl


@triton.jit
def log_ratio(p, q, difference):
    """(λ, pλ − (p − q)) with λ = log(p/q) of p, q > 0, whose difference p − q is given where it is known better."""
    # λ = 2t (1 + rest), rest = t²/3 + t⁴/5 + …, t = (p − q)/(p + q), for |t| < 1/7
    TERMS: tl.constexpr = 9 if difference.dtype == tl.float64 else 4
    t = difference / (p + q)
    square, rest = t * t, tl.zeros_like(t)
    for k in tl.static_range(TERMS, 0, -1):
        rest = (rest + 1 / (2 * k + 1)) * square
    near = tl.abs(t) < 1 / 7
    far = tl.log(p / q)
    # p/q = (1 + t)/(1 − t), so that the excess is (p − q) (t + (1 + t) rest)
    excess = tl.where(near, difference * (t + (1 + t) * rest), p * far - difference)
    return tl.where(near, 2 * t * (1 + rest), far), excess
