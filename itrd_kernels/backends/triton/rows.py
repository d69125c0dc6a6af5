"""Rows of the Gram term: norms, counts, which of them may be read. Device functions.

Every row z is used as s·z with a power of two s, 1 unless the row's size is extreme; r = 1/‖s·z‖, 0 for a zero row. The
record that `side` stands for is in records.py.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.numerics import as_read, inverse_power, power_of_two


@triton.jit
def add_to_norms(unit, square, x):
    """Σ x² per row in units of unit², which grows with the largest entry seen, so that squares stay in range."""
    larger = tl.maximum(unit, power_of_two(tl.max(tl.abs(x), 1)))
    shrink = unit * inverse_power(larger)
    scaled = x * inverse_power(larger)[:, None]
    return larger, square * (shrink * shrink) + tl.sum(scaled * scaled, 1)


@triton.jit
def scale_and_rnorm(unit, square, half_range, DTYPE: tl.constexpr):
    """(s, r) per row, ‖z‖² = unit² · square. Rows whose raw products are safe in DTYPE keep s = 1 and the fast path."""
    zero = square == 0
    root = tl.sqrt(tl.where(zero, 1.0, square))
    if tl.float16 == DTYPE:
        # K r_i W_ij r_j stays within the range of float16 if all rows have ‖s·z‖/√K in [1/8, 8].
        size = root * unit
        ordinary = zero | ((size * size >= half_range / 64) & (size * size <= half_range * 64))
        scale = tl.where(ordinary, 1.0, tl.sqrt(half_range) * inverse_power(power_of_two(size)))
        rnorm = 1 / (size * scale)
    else:
        limit = 2.0**400 if tl.float64 == DTYPE else 2.0**40
        ordinary = zero | ((unit >= 1 / limit) & (unit <= limit))
        scale = tl.where(ordinary, 1.0, inverse_power(unit))
        rnorm = 1 / tl.where(ordinary, root * unit, root)
    return scale, tl.where(zero, 0.0, rnorm)


@triton.jit
def squares_of_rows(
    side, row, inside, padded, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr
):
    """(unit, square) of `add_to_norms` of a block of rows, 0 outside; the transposed copy is written on the way."""
    unit, square = tl.full((ROWS,), 0.0, ACC), tl.zeros((ROWS,), ACC)
    for start in range(0, side.width, COLUMNS):
        column = tl.max_contiguous(start + tl.arange(0, COLUMNS), 4)
        mask = inside[:, None] & (column < side.width)[None, :]
        x = tl.load(side.z + row.to(tl.int64)[:, None] * side.stride + column[None, :], mask, 0.0).to(ACC)
        store_transposed(side.transposed, x, row, column, side.width, padded)
        unit, square = add_to_norms(unit, square, as_read(x, PRECISION))
    return unit, square


@triton.jit
def store_transposed(transposed, x, row, column, width, padded):
    if transposed is not None:
        place = transposed + column.to(tl.int64)[:, None] * padded + row[None, :]
        tl.store(place, tl.trans(x), (column < width)[:, None])


@triton.jit
def store_norms(side, n, row, inside, unit, square, DTYPE: tl.constexpr):
    """(s, r) of a block of rows, stored for those inside."""
    scale, rnorm = scale_and_rnorm(unit, square, side.half_range, DTYPE)
    tl.store(side.norms + row, scale, inside)
    tl.store(side.norms + n + row, rnorm, inside)
    return scale, rnorm


@triton.jit
def store_counts(counts, blocks, block, scale_s, rnorm_s, scale_t, rnorm_t, ACC: tl.constexpr):
    """What the block adds to the counts (4, blocks) of Rows."""
    tl.store(counts + block, tl.sum((rnorm_s != 0).to(ACC), 0))
    tl.store(counts + blocks + block, tl.sum(((rnorm_s != 0) & (rnorm_t != 0)).to(ACC), 0))
    tl.store(counts + 2 * blocks + block, tl.sum((scale_s != 1).to(ACC), 0))
    tl.store(counts + 3 * blocks + block, tl.sum((scale_t != 1).to(ACC), 0))


@triton.jit
def rows_that_count(side, row, n):
    """The rows that are there, and are not left out."""
    counts = row < n
    if side.keep is not None:
        counts = counts & tl.load(side.keep + row, counts, 0)
    return counts


@triton.jit
def rows_to_read(side, row, n):
    """The same once norms are known, without rows of norm 0, which are not missed.

    A mask of `keep` itself would have Triton take a product's operands for 8-bit ones.
    """
    inside = row < n
    if side.keep is not None:
        inside = inside & (tl.load(side.norms + n + row, inside, 0.0) != 0)
    return inside


@triton.jit
def count(rows, blocks, kind, ACC: tl.constexpr):
    """Sum over the blocks of rows of what rows.counts (4, blocks) holds of one kind."""
    CHUNK: tl.constexpr = 128
    total = tl.zeros((CHUNK,), ACC)
    for start in range(0, blocks, CHUNK):
        block = start + tl.arange(0, CHUNK)
        total += tl.load(rows.counts + kind * blocks + block, block < blocks, 0.0)
    return tl.sum(total, 0)
