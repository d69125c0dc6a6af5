"""The kernels that are launched: which program does what, and in which order.

The arithmetic is in correlation.py and gram.py.

Forward: `statistics_kernel`, `potential_kernel`, and with gradients `product_kernel`. Backward: `gradient_kernel`.
Shapes: z_e, z_t (n, d_t), z_s (n, d_s); `rows` (4, n) holds s and r of z_s and of z_t; `counts` (4, blocks) the numbers
of non-zero rows of z_s, of pairs, and of extreme rows of z_s and z_t; `sums` (2, tiles).
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.correlation import (
    column_moments,
    correlation_gradient,
    finish_correlation,
    merge_moments,
)
from itrd_kernels.backends.triton.gram import (
    add_to_norms,
    coefficients,
    count,
    dot_tile,
    keep_tile,
    multiply,
    potential_tile,
    scale_and_rnorm,
    tile_index,
)
from itrd_kernels.backends.triton.numerics import as_read, divide_or_zero, is_last, sum_tile


@triton.jit(do_not_specialize=["n", "blocks"])
def statistics_kernel(
    z_e, z_t, z_s, partials, rows, counts, ticket, across_s, across_t,
    n, d_t, d_s, stride_e, stride_t, stride_s, padded, blocks, spread_s, spread_t,
    CORRELATION: tl.constexpr, GRAM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """One pass over the inputs, a block of rows per program: partial moments of columns, norms of rows.

    z_s is None where the Gram term reads z_e. across_s and across_t, unless None, become the Gram inputs transposed,
    (d, padded), zero in the columns beyond n.
    """
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    inside = row < n
    present = tl.maximum(tl.minimum(n - block * ROWS, ROWS), 1).to(ACC)
    far = row.to(tl.int64)[:, None]
    if block == 0:
        tl.store(ticket, 0)
    unit_s, square_s = tl.full((ROWS,), 0.0, ACC), tl.zeros((ROWS,), ACC)
    unit_t, square_t = tl.full((ROWS,), 0.0, ACC), tl.zeros((ROWS,), ACC)
    for start in range(0, d_t, COLUMNS):
        columns = tl.max_contiguous(start + tl.arange(0, COLUMNS), 4)
        mask = inside[:, None] & (columns < d_t)[None, :]
        x_t = tl.load(z_t + far * stride_t + columns[None, :], mask, 0.0).to(ACC)
        if CORRELATION:
            x_e = tl.load(z_e + far * stride_e + columns[None, :], mask, 0.0).to(ACC)
            shift_e = tl.load(z_e + columns, columns < d_t, 0.0).to(ACC)
            shift_t = tl.load(z_t + columns, columns < d_t, 0.0).to(ACC)
            column_moments(x_e, x_t, shift_e, shift_t, inside, present, partials, columns, columns < d_t, d_t, block)
            if GRAM and z_s is None:
                _store_across(across_s, x_e, row, columns, d_t, padded)
                unit_s, square_s = add_to_norms(unit_s, square_s, as_read(x_e, PRECISION))
        if GRAM:
            _store_across(across_t, x_t, row, columns, d_t, padded)
            unit_t, square_t = add_to_norms(unit_t, square_t, as_read(x_t, PRECISION))
    if GRAM:
        if z_s is not None:
            for start in range(0, d_s, COLUMNS):
                columns = tl.max_contiguous(start + tl.arange(0, COLUMNS), 4)
                mask = inside[:, None] & (columns < d_s)[None, :]
                x_s = tl.load(z_s + far * stride_s + columns[None, :], mask, 0.0).to(ACC)
                _store_across(across_s, x_s, row, columns, d_s, padded)
                unit_s, square_s = add_to_norms(unit_s, square_s, as_read(x_s, PRECISION))
        scale_s, rnorm_s = scale_and_rnorm(unit_s, square_s, spread_s, z_t.dtype.element_ty)
        scale_t, rnorm_t = scale_and_rnorm(unit_t, square_t, spread_t, z_t.dtype.element_ty)
        tl.store(rows + row, scale_s, inside)
        tl.store(rows + n + row, rnorm_s, inside)
        tl.store(rows + 2 * n + row, scale_t, inside)
        tl.store(rows + 3 * n + row, rnorm_t, inside)
        tl.store(counts + block, tl.sum((rnorm_s != 0).to(ACC), 0))
        tl.store(counts + blocks + block, tl.sum(((rnorm_s != 0) & (rnorm_t != 0)).to(ACC), 0))
        tl.store(counts + 2 * blocks + block, tl.sum((scale_s != 1).to(ACC), 0))
        tl.store(counts + 3 * blocks + block, tl.sum((scale_t != 1).to(ACC), 0))


@triton.jit
def _store_across(across, x, row, columns, d, padded):
    if across is not None:
        place = across + columns.to(tl.int64)[:, None] * padded + row[None, :]
        tl.store(place, tl.trans(x), (columns < d)[:, None])


@triton.jit(do_not_specialize=["n", "blocks", "first", "last", "tiles", "merges", "programs"])
def potential_kernel(
    z_e, z_t, z_s, partials, moments, rows, counts, logged, sums, weights_s, weights_t, projections_s, projections_t,
    ticket, total, correlation, mutual_information, across_s, across_t,
    n, d_t, d_s, stride_t, stride_s, padded, blocks, spread_s, spread_t, first, last, tiles, merges, programs,
    alpha: tl.float64, beta_corr: tl.float64, beta_mi: tl.float64,
    CORRELATION: tl.constexpr, GRAM: tl.constexpr, LOG: tl.constexpr, SUMS: tl.constexpr,
    KEEP_S: tl.constexpr, KEEP_T: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The first `merges` programs finish the columns' moments, the others take a tile of W each; with SUMS, the last
    program of all launches to finish writes the scalars."""
    program = tl.program_id(0)
    if CORRELATION and program < merges:
        merge_moments(z_e, z_t, partials, moments, n, d_t, blocks, program, ROWS, BLOCKS, COLUMNS, ACC)
    if GRAM:
        i, j, exists = _tile_of(program - merges, first, last, tiles)
        if program >= merges and exists:
            _potential(
                z_t, z_s, rows, counts, logged, sums, weights_s, weights_t, projections_s, projections_t,
                across_s, across_t, n, d_t, d_s, stride_t, stride_s, padded, blocks, spread_s, spread_t,
                first, tiles, i, j,
                LOG, SUMS, KEEP_S, KEEP_T, BLOCK, DEPTH, PRECISION, ACC,
            )  # fmt: skip
    if SUMS and is_last(ticket, programs):
        weighted = tl.zeros((), ACC)
        nan = tl.full((), float("nan"), ACC)
        tl.store(correlation, nan)
        tl.store(mutual_information, nan)
        if CORRELATION:
            value = finish_correlation(moments, n, d_t, alpha, 1024, ACC)
            tl.store(correlation, value)
            weighted += tl.full((), beta_corr, ACC) * value
        if GRAM:
            value = _finish_potential(counts, logged, sums, blocks, tiles * (tiles + 1) // 2, LOG, ACC)
            tl.store(mutual_information, value)
            weighted += tl.full((), beta_mi, ACC) * value
        tl.store(total, weighted)


@triton.jit
def _tile_of(program, first, last, tiles):
    """(i, j ≥ i) of a program, and whether there is one: block rows q and last−1−q have together a fixed number."""
    height, width = last - first, tiles - first
    pair, along = program // (2 * width - height + 1), program % (2 * width - height + 1)
    second = along >= width - pair
    row = tl.where(second, height - 1 - pair, pair)
    i = first + row
    return i, i + tl.where(second, along - (width - pair), along), (row != pair) | (~second)


@triton.jit
def _potential(
    z_t, z_s, rows, counts, logged, sums, weights_s, weights_t, projections_s, projections_t,
    across_s, across_t, n, d_t, d_s, stride_t, stride_s, padded, blocks, spread_s, spread_t, first, tiles, i, j,
    LOG: tl.constexpr, SUMS: tl.constexpr, KEEP_S: tl.constexpr, KEEP_T: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of G_s and G_t: its share of the loss, its tile of W."""
    DTYPE: tl.constexpr = z_t.dtype.element_ty
    row_i = i * BLOCK + tl.arange(0, BLOCK)
    row_j = j * BLOCK + tl.arange(0, BLOCK)
    scale_si, scale_sj = tl.load(rows + row_i, row_i < n, 1.0), tl.load(rows + row_j, row_j < n, 1.0)
    products_s = dot_tile(
        z_s, stride_s, across_s, padded, row_i, row_j, scale_si, scale_sj, n, d_s, BLOCK, DEPTH, PRECISION, ACC
    )
    scale_ti, scale_tj = tl.load(rows + 2 * n + row_i, row_i < n, 1.0), tl.load(rows + 2 * n + row_j, row_j < n, 1.0)
    products_t = dot_tile(
        z_t, stride_t, across_t, padded, row_i, row_j, scale_ti, scale_tj, n, d_t, BLOCK, DEPTH, PRECISION, ACC
    )
    rnorm_si, rnorm_sj = tl.load(rows + n + row_i, row_i < n, 0.0), tl.load(rows + n + row_j, row_j < n, 0.0)
    rnorm_ti, rnorm_tj = tl.load(rows + 3 * n + row_i, row_i < n, 0.0), tl.load(rows + 3 * n + row_j, row_j < n, 0.0)
    # On the diagonal G is exactly 1, or 0 for a zero row.
    diagonal = row_i[:, None] == row_j[None, :]
    g_s = tl.where(diagonal, (rnorm_si != 0).to(ACC)[:, None], products_s * rnorm_si[:, None] * rnorm_sj[None, :])
    g_t = tl.where(diagonal, (rnorm_ti != 0).to(ACC)[:, None], products_t * rnorm_ti[:, None] * rnorm_tj[None, :])
    if SUMS:
        tile = tile_index(i, j, 0, tiles)
        twice = tl.where(i == j, 1.0, 2.0).to(ACC)
    if LOG and SUMS:
        square_s, square_st = g_s * g_s, g_s * g_t * (g_s * g_t)
        tl.store(sums + tile, twice * sum_tile(square_s))
        tl.store(sums + tiles * (tiles + 1) // 2 + tile, twice * sum_tile(square_st))
    else:
        _, c_s, c_st = coefficients(counts, logged, blocks, LOG, 128, ACC)
        loss, w_s, w_t = potential_tile(g_s, g_t, c_s, c_st)
        if SUMS:
            tl.store(sums + tile, twice * sum_tile(loss))
        # The diagonal's part of the gradient is along ẑ_i, which the projection removes.
        index = tile_index(i, j, first, tiles)
        if KEEP_S:
            keep_tile(
                tl.where(diagonal, 0.0, w_s), g_s, rnorm_si, rnorm_sj,
                weights_s, projections_s, index, spread_s, DTYPE, PRECISION, BLOCK, ACC,
            )  # fmt: skip
        if KEEP_T:
            keep_tile(
                tl.where(diagonal, 0.0, w_t), g_t, rnorm_ti, rnorm_tj,
                weights_t, projections_t, index, spread_t, DTYPE, PRECISION, BLOCK, ACC,
            )  # fmt: skip


@triton.jit
def _finish_potential(counts, logged, sums, blocks, tiles, LOG: tl.constexpr, ACC: tl.constexpr):
    """L_mi from the tiles' sums; in the log form also c_s and c_st."""
    if not LOG:
        c, _, _ = coefficients(counts, logged, blocks, False, 128, ACC)
        value = c * _sum(sums, tiles, ACC)
    else:
        sum_s, sum_st = _sum(sums, tiles, ACC), _sum(sums + tiles, tiles, ACC)
        m_s, m_st = count(counts, blocks, 0, 128, ACC), count(counts, blocks, 1, 128, ACC)
        # ∂ log2 x = ∂x / (x ln 2)
        tl.store(logged, divide_or_zero(1.0, 0.6931471805599453 * sum_s))
        tl.store(logged + 1, divide_or_zero(1.0, 0.6931471805599453 * sum_st))
        value = _log2_or_zero(divide_or_zero(sum_s, m_s * m_s)) - _log2_or_zero(divide_or_zero(sum_st, m_st * m_st))
    return value


@triton.jit
def _log2_or_zero(x):
    return tl.where(x == 0, 0.0, tl.log2(tl.where(x == 0, 1.0, x)))


@triton.jit
def _sum(values, length, ACC: tl.constexpr):
    total = tl.zeros((1024,), ACC)
    for start in range(0, length, 1024):
        index = start + tl.arange(0, 1024)
        total += tl.load(values + index, index < length, 0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["n", "blocks", "first", "last", "tiles"])
def product_kernel(
    z_t, z_s, rows, counts, logged, weights_s, weights_t, projections_s, projections_t,
    carried_s, carried_t, out_s, out_t,
    across_s, across_t, n, d_t, d_s, stride_t, stride_s, padded, blocks, spread_s, spread_t, first, last, tiles,
    LOG: tl.constexpr, KEEP_S: tl.constexpr, KEEP_T: tl.constexpr, PANELS: tl.constexpr, BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """∂L_mi/∂z_s and ∂L_mi/∂z_t: a block of rows and some columns per program, the student's programs first."""
    c, _, _ = coefficients(counts, logged, blocks, LOG, 128, ACC)
    program = tl.program_id(0)
    width = tl.cdiv(d_s, COLUMNS) if KEEP_S else 0
    students = width * (tiles - first)
    if KEEP_S and program < students:
        wild = count(counts, blocks, 2, 128, ACC)
        multiply(
            z_s, stride_s, across_s, padded, rows, rows + n, weights_s, projections_s, carried_s, out_s,
            first + program // width,
            program % width, first, last, tiles, n, d_s, c, wild,
            spread_s, BLOCK, COLUMNS, DEPTH, PANELS, PRECISION, ACC,
        )  # fmt: skip
    if KEEP_T and program >= students:
        wild = count(counts, blocks, 3, 128, ACC)
        width = tl.cdiv(d_t, COLUMNS)
        program -= students
        multiply(
            z_t, stride_t, across_t, padded, rows + 2 * n, rows + 3 * n, weights_t, projections_t, carried_t, out_t,
            first + program // width, program % width, first, last, tiles, n, d_t, c, wild,
            spread_t, BLOCK, COLUMNS, DEPTH, PANELS, PRECISION, ACC,
        )  # fmt: skip


@triton.jit(do_not_specialize=["n"])
def gradient_kernel(
    g_total, g_correlation, g_mutual_information, z_e, z_t, moments, dgram_e, dgram_t, dgram_s, grad_e, grad_t, grad_s,
    n, d_t, d_s, stride_e, stride_t, beta_corr: tl.float64, beta_mi: tl.float64,
    CORRELATION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of z_e, z_t and z_s under the upstream factors; what is None is not there, or not wanted.

    dgram_e is the Gram term's gradient where that reads z_e, dgram_s where it reads z_s.
    """
    g_corr = _upstream(g_total, g_correlation, beta_corr, ACC)
    g_mi = _upstream(g_total, g_mutual_information, beta_mi, ACC)
    program = tl.program_id(0)
    across = tl.cdiv(d_t, COLUMNS) if (grad_e is not None) or (grad_t is not None) else 0
    shared = tl.cdiv(n, ROWS) * across
    if ((grad_e is not None) or (grad_t is not None)) and program < shared:
        row = program // across * ROWS + tl.arange(0, ROWS)
        columns = tl.max_contiguous(program % across * COLUMNS + tl.arange(0, COLUMNS), 4)
        mask = (row < n)[:, None] & (columns < d_t)[None, :]
        far = row.to(tl.int64)[:, None]
        here = far * d_t + columns[None, :]
        sum_e, sum_t = tl.zeros((ROWS, COLUMNS), ACC), tl.zeros((ROWS, COLUMNS), ACC)
        if CORRELATION:
            x_e = tl.load(z_e + far * stride_e + columns[None, :], mask, 0.0).to(ACC)
            x_t = tl.load(z_t + far * stride_t + columns[None, :], mask, 0.0).to(ACC)
            sum_e, sum_t = correlation_gradient(x_e, x_t, moments, columns, columns < d_t, n, d_t, g_corr, ACC)
        if grad_e is not None:
            if dgram_e is not None:
                sum_e += g_mi * tl.load(dgram_e + here, mask, 0.0)
            tl.store(grad_e + here, sum_e.to(grad_e.dtype.element_ty), mask)
        if grad_t is not None:
            if dgram_t is not None:
                sum_t += g_mi * tl.load(dgram_t + here, mask, 0.0)
            tl.store(grad_t + here, sum_t.to(grad_t.dtype.element_ty), mask)
    if (grad_s is not None) and program >= shared:
        across = tl.cdiv(d_s, COLUMNS)
        program -= shared
        row = program // across * ROWS + tl.arange(0, ROWS)
        columns = tl.max_contiguous(program % across * COLUMNS + tl.arange(0, COLUMNS), 4)
        mask = (row < n)[:, None] & (columns < d_s)[None, :]
        here = row.to(tl.int64)[:, None] * d_s + columns[None, :]
        value = tl.zeros((ROWS, COLUMNS), ACC)
        if dgram_s is not None:
            value += g_mi * tl.load(dgram_s + here, mask, 0.0)
        tl.store(grad_s + here, value.to(grad_s.dtype.element_ty), mask)


@triton.jit
def _upstream(g_total, g_term, beta, ACC: tl.constexpr):
    """g_total · β + g_term, either of which may be None."""
    g = tl.zeros((), ACC)
    if g_total is not None:
        g += tl.load(g_total) * tl.full((), beta, ACC)
    if g_term is not None:
        g += tl.load(g_term)
    return g
