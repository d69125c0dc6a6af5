"""The correlation loss (Eq. 6), per column of z_e and z_t: device functions.

Forward: `column_moments` of a block of rows → `merge_moments` of all blocks → `finish_correlation` over the columns.
Backward: `correlation_gradient`, elementwise. docs/design/mathematics.md derives the formulas.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.numerics import LN2, divide_or_zero, inverse_power, power_of_two, split

# What a block of rows leaves per column: δ_s, δ_t (mean − first row of z), √M2_s, √M2_t, correlation coefficient.
PARTIALS = 5


@triton.jit
def column_moments(x_s, x_t, shift_s, shift_t, inside, count, partials, columns, column_mask, d, block):
    """Centred moments of the rows in x_s and x_t (rows, columns), relative to the shifts; written to `partials`."""
    delta_s, rms_s, c_s = _centred(x_s, shift_s, inside, count)
    delta_t, rms_t, c_t = _centred(x_t, shift_t, inside, count)
    m2_s, m2_t = tl.sum(c_s * c_s, 0), tl.sum(c_t * c_t, 0)
    root_s, root_t = tl.sqrt(m2_s), tl.sqrt(m2_t)
    base = partials + block.to(tl.int64) * 5 * d + columns
    tl.store(base, delta_s, column_mask)
    tl.store(base + d, delta_t, column_mask)
    # Square roots, since the squares themselves overflow or vanish where the columns are at 1e20 or 1e-25.
    tl.store(base + 2 * d, rms_s * root_s, column_mask)
    tl.store(base + 3 * d, rms_t * root_t, column_mask)
    # Σ(s−μ_s)(t−μ_t) / √(Σ(s−μ_s)² Σ(t−μ_t)²)
    tl.store(base + 4 * d, divide_or_zero(tl.sum(c_s * c_t, 0), root_s * root_t), column_mask)


@triton.jit
def _centred(x, shift, inside, count):
    """(mean − shift, unit, (x − mean)/unit) per column, the unit a power of two near the largest deviation."""
    deviation = tl.where(inside[:, None], x - shift[None, :], 0.0)
    unit = power_of_two(tl.max(tl.abs(deviation), 0))
    scaled = deviation * inverse_power(unit)[None, :]
    mean = tl.sum(scaled, 0) / count
    return mean * unit, unit, tl.where(inside[:, None], scaled - mean[None, :], 0.0)


@triton.jit
def merge_moments(
    z_e, z_t, partials, moments, n, d, blocks, block_of_columns,
    ROWS: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Chan's formula over all blocks of rows at once, then rows 0 to 6 of `moments` for a block of columns."""
    columns = block_of_columns * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < d
    count = n.to(ACC)
    large_s, large_t = tl.zeros((COLUMNS,), ACC), tl.zeros((COLUMNS,), ACC)
    # δ = Σ_p n_p δ_p / n in float64: equal addends, as where few rows outweigh all others, round alike.
    sum_s, sum_t = tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64)
    for start in range(0, blocks, BLOCKS):
        delta_s, delta_t, rms_s, rms_t, _, n_p = _load_partials(
            partials, columns, mask, start, n, d, blocks, ROWS, BLOCKS, ACC
        )
        sum_s += tl.sum((delta_s * n_p[:, None]).to(tl.float64), 0)
        sum_t += tl.sum((delta_t * n_p[:, None]).to(tl.float64), 0)
        large_s = tl.maximum(large_s, tl.max(tl.maximum(tl.abs(delta_s), rms_s), 0))
        large_t = tl.maximum(large_t, tl.max(tl.maximum(tl.abs(delta_t), rms_t), 0))
    mean_s, low_s = split(sum_s / n, ACC)
    mean_t, low_t = split(sum_t / n, ACC)
    unit_s, unit_t = power_of_two(large_s), power_of_two(large_t)
    per_s, per_t = inverse_power(unit_s)[None, :], inverse_power(unit_t)[None, :]
    m2_s, m2_t, cross = tl.zeros((COLUMNS,), ACC), tl.zeros((COLUMNS,), ACC), tl.zeros((COLUMNS,), ACC)
    # M2 = Σ_p M2_p + n_p (δ_p − δ)²
    for start in range(0, blocks, BLOCKS):
        delta_s, delta_t, rms_s, rms_t, coefficient, n_p = _load_partials(
            partials, columns, mask, start, n, d, blocks, ROWS, BLOCKS, ACC
        )
        off_s, off_t = (delta_s - mean_s[None, :]) * per_s, (delta_t - mean_t[None, :]) * per_t
        rms_s, rms_t = rms_s * per_s, rms_t * per_t
        m2_s += tl.sum(rms_s * rms_s + n_p[:, None] * off_s * off_s, 0)
        m2_t += tl.sum(rms_t * rms_t + n_p[:, None] * off_t * off_t, 0)
        cross += tl.sum(coefficient * rms_s * rms_t + n_p[:, None] * off_s * off_t, 0)
    dead = (m2_s == 0) | (m2_t == 0)
    # v = (n−1)/n · C / √(M2_s M2_t), in which the units cancel
    v = divide_or_zero((count - 1) / count * cross, tl.sqrt(m2_s) * tl.sqrt(m2_t))
    _store_mean(z_e, moments, columns, mask, d, 0, mean_s, low_s, ACC)
    _store_mean(z_t, moments, columns, mask, d, 3, mean_t, low_t, ACC)
    # 1/σ = √((n−1)/M2); 0 marks a dead column
    rstd_s = divide_or_zero(tl.sqrt(count - 1), tl.sqrt(m2_s)) * inverse_power(unit_s)
    rstd_t = divide_or_zero(tl.sqrt(count - 1), tl.sqrt(m2_t)) * inverse_power(unit_t)
    tl.store(moments + 2 * d + columns, tl.where(dead, 0.0, rstd_s), mask)
    tl.store(moments + 5 * d + columns, tl.where(dead, 0.0, rstd_t), mask)
    tl.store(moments + 6 * d + columns, v, mask)


@triton.jit
def _load_partials(
    partials, columns, mask, start, n, d, blocks, ROWS: tl.constexpr, BLOCKS: tl.constexpr, ACC: tl.constexpr
):
    block = start + tl.arange(0, BLOCKS)
    inside = (block < blocks)[:, None] & mask[None, :]
    base = partials + (block.to(tl.int64) * 5 * d)[:, None] + columns[None, :]
    n_p = tl.maximum(tl.minimum(n - block * ROWS, ROWS), 0).to(ACC)
    return (
        tl.load(base, inside, 0.0),
        tl.load(base + d, inside, 0.0),
        tl.load(base + 2 * d, inside, 0.0),
        tl.load(base + 3 * d, inside, 0.0),
        tl.load(base + 4 * d, inside, 0.0),
        n_p,
    )


@triton.jit
def _store_mean(z, moments, columns, mask, d, row, delta, low, ACC: tl.constexpr):
    """first row + δ + low, as a sum and what is too small for it."""
    first = tl.load(z + columns, mask, 0.0).to(ACC)
    mean = first + delta
    rest = mean - first
    tl.store(moments + row * d + columns, mean, mask)
    tl.store(moments + (row + 1) * d + columns, (first - (mean - rest)) + (delta - rest) + low, mask)


@triton.jit
def finish_correlation(moments, n, d, alpha, COLUMNS: tl.constexpr, ACC: tl.constexpr):
    """L_corr from v in row 6 of `moments`, whose place a = ∂L_corr/∂v / n takes; row 7: b = v ∂L_corr/∂v / (n−1)."""
    largest = tl.zeros((), ACC)
    for start in range(0, d, COLUMNS):
        e, _, _ = _error(moments, n, d, start, COLUMNS, ACC)
        largest = tl.maximum(largest, tl.max(e, 0))
    # Σ (|e|/max|e|)^(2α), since (1/256)^20 underflows float32
    power = tl.full((), 2 * alpha, ACC)
    total = tl.zeros((), ACC)
    for start in range(0, d, COLUMNS):
        e, columns, _ = _error(moments, n, d, start, COLUMNS, ACC)
        total += tl.sum(tl.where(columns < d, tl.exp2(power * tl.log2(e / largest)), 0.0), 0)
    # ∂L/∂v = 2α |e|^(2α−1) sign(e) / (ln 2 · Σ|e|^(2α)), and e < 0
    scale = -power / (total * LN2 * largest)
    for start in range(0, d, COLUMNS):
        e, columns, dead = _error(moments, n, d, start, COLUMNS, ACC)
        slope = tl.where(dead, 0.0, scale * tl.exp2((power - 1) * tl.log2(e / largest)))
        v = tl.load(moments + 6 * d + columns, columns < d, 0.0)
        tl.store(moments + 6 * d + columns, slope / n, columns < d)
        tl.store(moments + 7 * d + columns, v * slope / tl.maximum(n - 1, 1), columns < d)
    return power * tl.log2(largest) + tl.log2(total)


@triton.jit
def _error(moments, n, d, start, COLUMNS: tl.constexpr, ACC: tl.constexpr):
    """|e| = 1 − v, which rounding must not take below 1/n (|v| ≤ (n−1)/n), and the dead columns."""
    columns = start + tl.arange(0, COLUMNS)
    v = tl.load(moments + 6 * d + columns, columns < d, 0.0)
    dead = tl.load(moments + 2 * d + columns, columns < d, 0.0) == 0
    least = 1 / n.to(ACC)
    e = 1 - v
    # Outside of d: as small as can be, so that the maximum does not see it; NaN passes both comparisons.
    return tl.where((e < least) | (columns >= d), least, e), columns, dead


@triton.jit
def correlation_gradient(x_s, x_t, moments, columns, mask, d, g):
    """g · ∂L_corr/∂z_e and g · ∂L_corr/∂z_t of x_s and x_t (rows, columns)."""
    mean_s, low_s, rstd_s = _load_three(moments, columns, mask, d, 0)
    mean_t, low_t, rstd_t = _load_three(moments, columns, mask, d, 3)
    a = g * tl.load(moments + 6 * d + columns, mask, 0.0)
    b = g * tl.load(moments + 7 * d + columns, mask, 0.0)
    hat_s = ((x_s - mean_s[None, :]) - low_s[None, :]) * rstd_s[None, :]
    hat_t = ((x_t - mean_t[None, :]) - low_t[None, :]) * rstd_t[None, :]
    # ∂L/∂s = (a t̂ − b ŝ) / σ_s
    grad_s = rstd_s[None, :] * (a[None, :] * hat_t - b[None, :] * hat_s)
    grad_t = rstd_t[None, :] * (a[None, :] * hat_s - b[None, :] * hat_t)
    return grad_s, grad_t


@triton.jit
def _load_three(moments, columns, mask, d, row):
    base = moments + row * d + columns
    return tl.load(base, mask, 0.0), tl.load(base + d, mask, 0.0), tl.load(base + 2 * d, mask, 0.0)
