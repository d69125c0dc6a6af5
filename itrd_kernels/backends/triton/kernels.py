"""The kernels that are launched: which program does what, and in which order.

The arithmetic is in correlation.py, rows.py and gram.py, the records of arguments in records.py.

Forward: `statistics`, `gram_tiles`, and with gradients `gram_gradients`. Backward: `gradients`.
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
    coefficients,
    cosines,
    dot_tile,
    finish_sums,
    keep_tile,
    multiply,
    tile_index,
    tile_of,
)
from itrd_kernels.backends.triton.losses.mutual_information import mutual_information_tile
from itrd_kernels.backends.triton.numerics import as_read, is_last, sum_tile
from itrd_kernels.backends.triton.rows import (
    add_to_norms,
    count,
    squares_of_rows,
    store_counts,
    store_norms,
    store_transposed,
)


@triton.jit(do_not_specialize=["n", "blocks"])
def statistics(
    columns, student, teacher, rows, ticket, n, padded, blocks,
    CORRELATION: tl.constexpr, GRAM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """One pass over the inputs, a block of rows per program: partial moments of columns, norms of rows.

    student.z is None where the Gram term reads the correlation's student. A transposed copy, where there is one, is
    written too.
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
    width = teacher.width
    for start in range(0, width, COLUMNS):
        column = tl.max_contiguous(start + tl.arange(0, COLUMNS), 4)
        mask = inside[:, None] & (column < width)[None, :]
        x_t = tl.load(teacher.z + far * teacher.stride + column[None, :], mask, 0.0).to(ACC)
        if CORRELATION:
            x_e = tl.load(columns.z + far * columns.stride + column[None, :], mask, 0.0).to(ACC)
            shift_e = tl.load(columns.z + column, column < width, 0.0).to(ACC)
            shift_t = tl.load(teacher.z + column, column < width, 0.0).to(ACC)
            column_moments(
                x_e, x_t, shift_e, shift_t, inside, present, columns.partials, column, column < width, width, block
            )
            if GRAM and student.z is None:
                store_transposed(student.transposed, x_e, row, column, width, padded)
                unit_s, square_s = add_to_norms(unit_s, square_s, as_read(x_e, PRECISION))
        if GRAM:
            store_transposed(teacher.transposed, x_t, row, column, width, padded)
            unit_t, square_t = add_to_norms(unit_t, square_t, as_read(x_t, PRECISION))
    if GRAM:
        if student.z is not None:
            unit_s, square_s = squares_of_rows(student, row, inside, padded, ROWS, COLUMNS, PRECISION, ACC)
        scale_s, rnorm_s = store_norms(student, n, row, inside, unit_s, square_s, teacher.z.dtype.element_ty)
        scale_t, rnorm_t = store_norms(teacher, n, row, inside, unit_t, square_t, teacher.z.dtype.element_ty)
        store_counts(rows.counts, blocks, block, scale_s, rnorm_s, scale_t, rnorm_t, ACC)


@triton.jit(do_not_specialize=["n", "blocks", "first", "last", "tiles", "merges", "programs"])
def gram_tiles(
    columns, student, teacher, rows, scalars, n, padded, blocks, first, last, tiles, merges, programs,
    alpha: tl.float64, beta_corr: tl.float64, beta_mi: tl.float64,
    CORRELATION: tl.constexpr, GRAM: tl.constexpr, LOG: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr,
    BLOCKS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr, TUNED_FOR: tl.constexpr = None,
):  # fmt: skip
    """The first `merges` programs finish the columns' moments, the others take a tile of W each; with SUMS, the last
    program of all launches to finish writes the scalars."""
    program = tl.program_id(0)
    if CORRELATION and program < merges:
        merge_moments(
            columns.z, teacher.z, columns.partials, columns.moments, n, teacher.width, blocks, program,
            ROWS, BLOCKS, COLUMNS, ACC,
        )  # fmt: skip
    if GRAM:
        i, j, exists = tile_of(program - merges, first, last, tiles)
        if program >= merges and exists:
            _gram_tile(
                student, teacher, rows, n, padded, blocks, first, tiles, i, j,
                LOG, SUMS, BLOCK, DEPTH, PRECISION, ACC,
            )  # fmt: skip
    if SUMS and is_last(scalars.ticket, programs):
        weighted = tl.zeros((), ACC)
        nan = tl.full((), float("nan"), ACC)
        tl.store(scalars.correlation, nan)
        tl.store(scalars.mutual_information, nan)
        if CORRELATION:
            value = finish_correlation(columns.moments, n, teacher.width, alpha, 1024, ACC)
            tl.store(scalars.correlation, value)
            weighted += tl.full((), beta_corr, ACC) * value
        if GRAM:
            value = finish_sums(rows, blocks, tiles * (tiles + 1) // 2, LOG, ACC)
            tl.store(scalars.mutual_information, value)
            weighted += tl.full((), beta_mi, ACC) * value
        tl.store(scalars.total, weighted)


@triton.jit
def _gram_tile(
    student, teacher, rows, n, padded, blocks, first, tiles, i, j,
    LOG: tl.constexpr, SUMS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of G_s and G_t: its share of the loss, its tile of W."""
    row_i = i * BLOCK + tl.arange(0, BLOCK)
    row_j = j * BLOCK + tl.arange(0, BLOCK)
    products_s = dot_tile(student, student, padded, row_i, row_j, n, n, BLOCK, DEPTH, PRECISION, ACC)
    products_t = dot_tile(teacher, teacher, padded, row_i, row_j, n, n, BLOCK, DEPTH, PRECISION, ACC)
    diagonal = row_i[:, None] == row_j[None, :]
    g_s, rnorm_si, rnorm_sj = cosines(student, student, products_s, row_i, row_j, n, n, diagonal, ACC)
    g_t, rnorm_ti, rnorm_tj = cosines(teacher, teacher, products_t, row_i, row_j, n, n, diagonal, ACC)
    if SUMS:
        tile = tile_index(i, j, 0, tiles, False)
        twice = tl.where(i == j, 1.0, 2.0).to(ACC)
    if LOG and SUMS:
        square_s, square_st = g_s * g_s, g_s * g_t * (g_s * g_t)
        tl.store(rows.sums + tile, twice * sum_tile(square_s))
        tl.store(rows.sums + tiles * (tiles + 1) // 2 + tile, twice * sum_tile(square_st))
    else:
        _, c_s, c_st = coefficients(rows, blocks, LOG, ACC)
        loss, w_s, w_t = mutual_information_tile(g_s, g_t, c_s, c_st)
        if SUMS:
            tl.store(rows.sums + tile, twice * sum_tile(loss))
        # The diagonal's part of the gradient is along ẑ_i, which the projection removes.
        index = tile_index(i, j, first, tiles, False)
        if student.weights is not None:
            w_s = tl.where(diagonal, 0.0, w_s)
            keep_tile(student, w_s, g_s, rnorm_si, rnorm_sj, index, PRECISION, BLOCK, ACC)
        if teacher.weights is not None:
            w_t = tl.where(diagonal, 0.0, w_t)
            keep_tile(teacher, w_t, g_t, rnorm_ti, rnorm_tj, index, PRECISION, BLOCK, ACC)


@triton.jit(do_not_specialize=["n", "blocks", "first", "last", "tiles"])
def gram_gradients(
    student, teacher, rows, n, padded, blocks, first, last, tiles,
    LOG: tl.constexpr, PANELS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, TUNED_FOR: tl.constexpr = None,
):  # fmt: skip
    """∂L_mi/∂z_s and ∂L_mi/∂z_t: a block of rows and some columns per program, the student's programs first."""
    c, _, _ = coefficients(rows, blocks, LOG, ACC)
    program = tl.program_id(0)
    column_blocks = tl.cdiv(student.width, COLUMNS) if student.weights is not None else 0
    students = column_blocks * (tiles - first)
    if student.weights is not None and program < students:
        extreme = count(rows, blocks, 2, ACC)
        multiply(
            student, student, padded, first + program // column_blocks, program % column_blocks, first, last, tiles,
            n, n, c, extreme, False, PANELS, BLOCK, COLUMNS, DEPTH, PRECISION, ACC,
        )  # fmt: skip
    if teacher.weights is not None and program >= students:
        extreme = count(rows, blocks, 3, ACC)
        column_blocks = tl.cdiv(teacher.width, COLUMNS)
        program -= students
        multiply(
            teacher, teacher, padded, first + program // column_blocks, program % column_blocks, first, last, tiles,
            n, n, c, extreme, False, PANELS, BLOCK, COLUMNS, DEPTH, PRECISION, ACC,
        )  # fmt: skip


@triton.jit(do_not_specialize=["n"])
def gradients(
    upstream, e, t, s, moments, n, d_t, d_s, beta_corr: tl.float64, beta_mi: tl.float64,
    CORRELATION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of z_e, z_t (n, d_t) and z_s (n, d_s) under the upstream factors."""
    g_corr = _upstream(upstream.total, upstream.correlation, beta_corr, ACC)
    g_mi = _upstream(upstream.total, upstream.mutual_information, beta_mi, ACC)
    program = tl.program_id(0)
    column_blocks = tl.cdiv(d_t, COLUMNS) if (e.gradient is not None) or (t.gradient is not None) else 0
    shared = tl.cdiv(n, ROWS) * column_blocks
    if ((e.gradient is not None) or (t.gradient is not None)) and program < shared:
        row = program // column_blocks * ROWS + tl.arange(0, ROWS)
        column = tl.max_contiguous(program % column_blocks * COLUMNS + tl.arange(0, COLUMNS), 4)
        mask = (row < n)[:, None] & (column < d_t)[None, :]
        far = row.to(tl.int64)[:, None]
        here = far * d_t + column[None, :]
        sum_e, sum_t = tl.zeros((ROWS, COLUMNS), ACC), tl.zeros((ROWS, COLUMNS), ACC)
        if CORRELATION:
            x_e = tl.load(e.z + far * e.stride + column[None, :], mask, 0.0).to(ACC)
            x_t = tl.load(t.z + far * t.stride + column[None, :], mask, 0.0).to(ACC)
            sum_e, sum_t = correlation_gradient(x_e, x_t, moments, column, column < d_t, d_t, g_corr)
        if e.gradient is not None:
            if e.dgram is not None:
                sum_e += g_mi * tl.load(e.dgram + here, mask, 0.0)
            tl.store(e.gradient + here, sum_e.to(e.gradient.dtype.element_ty), mask)
        if t.gradient is not None:
            if t.dgram is not None:
                sum_t += g_mi * tl.load(t.dgram + here, mask, 0.0)
            tl.store(t.gradient + here, sum_t.to(t.gradient.dtype.element_ty), mask)
    if (s.gradient is not None) and program >= shared:
        column_blocks = tl.cdiv(d_s, COLUMNS)
        program -= shared
        row = program // column_blocks * ROWS + tl.arange(0, ROWS)
        column = tl.max_contiguous(program % column_blocks * COLUMNS + tl.arange(0, COLUMNS), 4)
        mask = (row < n)[:, None] & (column < d_s)[None, :]
        here = row.to(tl.int64)[:, None] * d_s + column[None, :]
        value = tl.zeros((ROWS, COLUMNS), ACC)
        if s.dgram is not None:
            value += g_mi * tl.load(s.dgram + here, mask, 0.0)
        tl.store(s.gradient + here, value.to(s.gradient.dtype.element_ty), mask)


@triton.jit
def _upstream(g_total, g_term, beta, ACC: tl.constexpr):
    """g_total · β + g_term, either of which may be None."""
    g = tl.zeros((), ACC)
    if g_total is not None:
        g += tl.load(g_total) * tl.full((), beta, ACC)
    if g_term is not None:
        g += tl.load(g_term)
    return g
