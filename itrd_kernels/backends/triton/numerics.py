"""Device functions that both losses share: exact scaling by powers of two, rounding of operands, the last program."""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.configurations import VERSION

# Before 3.8 Triton cannot compile the sum of a sum for sm_100 in float16; for others it makes much the same of both.
SUM_AT_ONCE = tl.constexpr(VERSION < (3, 8))

LN2 = tl.constexpr(0.6931471805599453)

# Both branches of an `if` over dtypes are kept: Triton compiles what follows a `return`, so that `else` is needed.


@triton.jit
def power_of_two(x):
    """The largest power of two ≤ x, for x ≥ 0, held where its inverse is finite and normal too."""
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True) & 0x7FF0000000000000
        power = tl.minimum(tl.maximum(bits, 1 << 52), 2045 << 52).to(tl.float64, bitcast=True)
    else:
        bits = x.to(tl.int32, bitcast=True) & 0x7F800000
        power = tl.minimum(tl.maximum(bits, 1 << 23), 253 << 23).to(tl.float32, bitcast=True)
    return power


@triton.jit
def inverse_power(a):
    """1/a of a power of two, without a division."""
    if a.dtype == tl.float64:
        inverse = ((2046 << 52) - a.to(tl.int64, bitcast=True)).to(tl.float64, bitcast=True)
    else:
        inverse = ((254 << 23) - a.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    return inverse


@triton.jit
def exponent(a):
    """log2 of a power of two."""
    if a.dtype == tl.float64:
        log = ((a.to(tl.int64, bitcast=True) >> 52) - 1023).to(tl.float64)
    else:
        log = ((a.to(tl.int32, bitcast=True) >> 23) - 127).to(tl.float32)
    return log


@triton.jit
def as_operand(x, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """x rounded to what the matrix units read; they would truncate float32 to tf32, which biases every sum."""
    if PRECISION == "tf32":
        operand = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    else:
        operand = x.to(DTYPE)
    return operand


@triton.jit
def as_read(x, PRECISION: tl.constexpr):
    """x as the matrix units see it: float32 without the bits that tf32 lacks.

    Norms of the same values keep G free of that bias, and the projection exact.
    """
    if PRECISION == "tf32":  # noqa: SIM108
        seen = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    else:
        seen = x
    return seen


@triton.jit
def divide_or_zero(x, y):
    """x / y, and 0 where y is 0, but NaN where x is no number or infinite."""
    return tl.where(y == 0, 0.0 * x, x / tl.where(y == 0, 1.0, y))


@triton.jit
def split(x, ACC: tl.constexpr):
    """x as a number of type ACC and the rest."""
    high = x.to(ACC)
    return high, (x - high.to(tl.float64)).to(ACC)


@triton.jit
def sum_tile(x):
    """The sum of all that is in x, of two dimensions."""
    if SUM_AT_ONCE:  # noqa: SIM108
        total = tl.sum(x)
    else:
        total = tl.sum(tl.sum(x, 1), 0)
    return total


@triton.jit
def is_last(ticket, programs):
    """True in the program that finishes last: everything that the others stored before is visible to it."""
    tl.debug_barrier()
    return tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == programs - 1
