"""The kernels of the operator `gram`: one sweep over pairs of rows with any loss of losses/.

`pair_statistics`, `pair_tiles`, and with gradients `pair_gradients`; arithmetic as in kernels.py. In a triangle
`other_s` and `other_t` are `student` and `teacher` once more, with m = n and offset 0 (gram.py).
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.gram import (
    cosines,
    dot_tile,
    keep_tile,
    multiply,
    sum_of,
    sum_of_shares,
    tile_index,
    tile_of,
)
from itrd_kernels.backends.triton.losses.pair import PairInput
from itrd_kernels.backends.triton.numerics import is_last, split, sum_tile
from itrd_kernels.backends.triton.rows import count, rows_that_count, squares_of_rows, store_counts, store_norms


@triton.jit(do_not_specialize=["n", "m", "blocks"])
def pair_statistics(
    student, teacher, other_s, other_t, rows, n, m, padded, blocks,
    RECTANGLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Norms of rows, a block of rows per program: of the column rows, which are counted too, and then of own ones."""
    block = tl.program_id(0)
    if block == 0:
        tl.store(rows.ticket, 0)
    if block < blocks:
        _statistics(other_s, other_t, rows.counts, m, padded, blocks, block, True, ROWS, COLUMNS, PRECISION, ACC)
    if RECTANGLE and block >= blocks:
        block -= blocks
        _statistics(student, teacher, rows.counts, n, padded, blocks, block, False, ROWS, COLUMNS, PRECISION, ACC)


@triton.jit
def _statistics(
    student, teacher, counts, n, padded, blocks, block,
    COUNTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    row = block * ROWS + tl.arange(0, ROWS)
    inside = rows_that_count(student, row, n)
    unit_s, square_s = squares_of_rows(student, row, inside, padded, ROWS, COLUMNS, PRECISION, ACC)
    unit_t, square_t = squares_of_rows(teacher, row, inside, padded, ROWS, COLUMNS, PRECISION, ACC)
    # Rows that do not count have norm 0.
    scale_s, rnorm_s = store_norms(student, n, row, row < n, unit_s, square_s, teacher.z.dtype.element_ty)
    scale_t, rnorm_t = store_norms(teacher, n, row, row < n, unit_t, square_t, teacher.z.dtype.element_ty)
    if COUNTED:
        store_counts(counts, blocks, block, scale_s, rnorm_s, scale_t, rnorm_t, ACC)


@triton.jit(do_not_specialize=["n", "m", "offset", "blocks", "first", "last", "tiles", "programs"])
def pair_tiles(
    student, teacher, other_s, other_t, rows, n, m, offset, padded, blocks, first, last, tiles, programs,
    parameters_0: tl.float64, parameters_1: tl.float64,
    LOSS: tl.constexpr, COEFFICIENTS: tl.constexpr, FACTORED: tl.constexpr, ONE_SIDED: tl.constexpr,
    RECTANGLE: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of W per program; the last program of all launches to finish writes rows.result."""
    program = tl.program_id(0)
    if RECTANGLE:
        i, j, all_tiles = first + program // tiles, program % tiles, tl.cdiv(n, BLOCK) * tiles
        exists = i < last
    else:
        i, j, exists = tile_of(program, first, last, tiles)
        all_tiles = tiles * (tiles + 1) // 2
    if exists:
        _pair_tile(
            student, teacher, other_s, other_t, rows, n, m, offset, padded, blocks, first, tiles, i, j, all_tiles,
            parameters_0, parameters_1,
            LOSS, COEFFICIENTS, FACTORED, ONE_SIDED, RECTANGLE, BLOCK, DEPTH, PRECISION, ACC,
        )  # fmt: skip
    if is_last(rows.ticket, programs):
        c, _, _ = _coefficients(rows, blocks, parameters_0, parameters_1, COEFFICIENTS, FACTORED)
        tl.store(rows.result, c * sum_of(rows.sums, all_tiles, tl.float64))
        tl.store(rows.result + 1, sum_of(rows.sums + all_tiles, all_tiles, tl.float64))
        tl.store(rows.result + 2, count(rows, blocks, 0, tl.float64))
        tl.store(rows.result + 3, count(rows, blocks, 1, tl.float64))


@triton.jit
def _coefficients(rows, blocks, parameters_0, parameters_1, COEFFICIENTS: tl.constexpr, FACTORED: tl.constexpr):
    """(c, first, second), float64, of the coefficients that are given, or follow from counts and parameters."""
    p_0, p_1 = tl.full((), parameters_0, tl.float64), tl.full((), parameters_1, tl.float64)
    if rows.coefficients is not None:
        first, second = tl.load(rows.coefficients).to(tl.float64), tl.load(rows.coefficients + 1).to(tl.float64)
    else:
        m_s, m_st = count(rows, blocks, 0, tl.float64), count(rows, blocks, 1, tl.float64)
        first, second = COEFFICIENTS(m_s, m_st, p_0, p_1)
    return FACTORED(first, second, p_0, p_1)


@triton.jit
def _pair_tile(
    student, teacher, other_s, other_t, rows, n, m, offset, padded, blocks, first, tiles, i, j, all_tiles,
    parameters_0, parameters_1,
    LOSS: tl.constexpr, COEFFICIENTS: tl.constexpr, FACTORED: tl.constexpr, ONE_SIDED: tl.constexpr,
    RECTANGLE: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of G_s and G_t: its share of the sums and of the row sums, its tile of W."""
    row_i = i * BLOCK + tl.arange(0, BLOCK)
    row_j = j * BLOCK + tl.arange(0, BLOCK)
    products_s = dot_tile(student, other_s, padded, row_i, row_j, n, m, BLOCK, DEPTH, PRECISION, ACC)
    products_t = dot_tile(teacher, other_t, padded, row_i, row_j, n, m, BLOCK, DEPTH, PRECISION, ACC)
    diagonal = (row_i + offset)[:, None] == row_j[None, :]
    g, rnorm_si, rnorm_sj = cosines(student, other_s, products_s, row_i, row_j, n, m, diagonal, ACC)
    h, rnorm_ti, rnorm_tj = cosines(teacher, other_t, products_t, row_i, row_j, n, m, diagonal, ACC)
    own_s = _statistic(student, row_i, n, rnorm_si, ACC)[:, None]
    own_t = _statistic(teacher, row_i, n, rnorm_ti, ACC)[:, None]
    column_s = _statistic(other_s, row_j, m, rnorm_sj, ACC)[None, :]
    column_t = _statistic(other_t, row_j, m, rnorm_tj, ACC)[None, :]
    _, c_first, c_second = _coefficients(rows, blocks, parameters_0, parameters_1, COEFFICIENTS, FACTORED)
    c_0, low_0 = split(c_first, ACC)
    c_1, low_1 = split(c_second, ACC)
    p_0, p_1 = tl.full((), parameters_0, ACC), tl.full((), parameters_1, ACC)
    terms = LOSS(PairInput(g, h, own_s, own_t, column_s, column_t, c_0, c_1, low_0, low_1, p_0, p_1))
    sum_first, sum_second = sum_tile(terms.first), sum_tile(terms.second)
    w_s, w_t = terms.w_s, terms.w_t
    tile, index = tile_index(i, j, 0, tiles, RECTANGLE), tile_index(i, j, first, tiles, RECTANGLE)
    if ONE_SIDED:
        # Before the mirror image is asked for, which needs the registers.
        _store_row_sums(student, teacher, terms.row_s, terms.row_t, index * 2, 1, BLOCK)
        mirror = LOSS(PairInput(g, h, column_s, column_t, own_s, own_t, c_0, c_1, low_0, low_1, p_0, p_1))
        w_s, w_t = w_s + mirror.w_s, w_t + mirror.w_t
        if not RECTANGLE:
            # A tile beside the diagonal stands for its mirror image too.
            sum_first += tl.where(i != j, sum_tile(mirror.first), 0.0)
            sum_second += tl.where(i != j, sum_tile(mirror.second), 0.0)
            _store_row_sums(student, teacher, mirror.row_s, mirror.row_t, index * 2 + 1, 0, BLOCK)
    elif not RECTANGLE:
        twice = tl.where(i != j, 2.0, 1.0).to(ACC)
        sum_first, sum_second = twice * sum_first, twice * sum_second
    tl.store(rows.sums + tile, sum_first)
    tl.store(rows.sums + all_tiles + tile, sum_second)
    # The diagonal's part of the gradient is along ẑ_i, which the projection removes.
    if student.weights is not None:
        w_s = tl.where(diagonal, 0.0, w_s)
        keep_tile(student, w_s, g, rnorm_si, rnorm_sj, index, PRECISION, BLOCK, ACC)
    if teacher.weights is not None:
        w_t = tl.where(diagonal, 0.0, w_t)
        keep_tile(teacher, w_t, h, rnorm_ti, rnorm_tj, index, PRECISION, BLOCK, ACC)


@triton.jit
def _store_row_sums(student, teacher, row_s, row_t, slot, AXIS: tl.constexpr, BLOCK: tl.constexpr):
    if student.row_shares is not None:
        place = slot * BLOCK + tl.arange(0, BLOCK)
        tl.store(student.row_shares + place, tl.sum(row_s, AXIS))
        tl.store(teacher.row_shares + place, tl.sum(row_t, AXIS))


@triton.jit
def _statistic(side, row, n, rnorm, ACC: tl.constexpr):
    """What is given of the rows, 0 where they do not count; else 1, and 0 of a zero row."""
    if side.statistic is not None:
        statistic = tl.load(side.statistic + row, rows_that_count(side, row, n), 0.0)
    else:
        statistic = (rnorm != 0).to(ACC)
    return statistic


@triton.jit(do_not_specialize=["n", "m", "blocks", "first", "last", "tiles"])
def pair_gradients(
    student, teacher, other_s, other_t, rows, n, m, padded, blocks, first, last, tiles,
    parameters_0: tl.float64, parameters_1: tl.float64,
    COEFFICIENTS: tl.constexpr, FACTORED: tl.constexpr, RECTANGLE: tl.constexpr, PANELS: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """∂L/∂z_s and ∂L/∂z_t: a block of rows and some columns per program, the student's programs first; after them
    those that add up the row sums of a block of rows."""
    c, _, _ = _coefficients(rows, blocks, parameters_0, parameters_1, COEFFICIENTS, FACTORED)
    program = tl.program_id(0)
    height = (last if RECTANGLE else tiles) - first
    blocks_s = tl.cdiv(student.width, COLUMNS) if student.weights is not None else 0
    blocks_t = tl.cdiv(teacher.width, COLUMNS) if teacher.weights is not None else 0
    students, gradients = blocks_s * height, (blocks_s + blocks_t) * height
    if student.weights is not None and program < students:
        extreme = count(rows, blocks, 2, ACC)
        multiply(
            student, other_s, padded, first + program // blocks_s, program % blocks_s, first, last, tiles, n, m,
            c.to(ACC), extreme, RECTANGLE, PANELS, BLOCK, COLUMNS, DEPTH, PRECISION, ACC,
        )  # fmt: skip
    if teacher.weights is not None and (program >= students) & (program < gradients):
        extreme = count(rows, blocks, 3, ACC)
        place = program - students
        multiply(
            teacher, other_t, padded, first + place // blocks_t, place % blocks_t, first, last, tiles, n, m,
            c.to(ACC), extreme, RECTANGLE, PANELS, BLOCK, COLUMNS, DEPTH, PRECISION, ACC,
        )  # fmt: skip
    if student.row_shares is not None and program >= gradients:
        i = first + program - gradients
        _add_row_sums(student.row_shares, rows.row_sums, i, n, first, last, tiles, RECTANGLE, PANELS, BLOCK, ACC)
        _add_row_sums(teacher.row_shares, rows.row_sums + n, i, n, first, last, tiles, RECTANGLE, PANELS, BLOCK, ACC)


@triton.jit
def _add_row_sums(
    shares, row_sums, i, n, first, last, tiles,
    RECTANGLE: tl.constexpr, PANELS: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Row sums of block row i from the tiles' shares, on top of what a triangle's earlier panels have left."""
    row = i * BLOCK + tl.arange(0, BLOCK)
    total = sum_of_shares(shares, i, first, last, tiles, RECTANGLE, BLOCK, ACC)
    if PANELS:
        total += tl.load(row_sums + row, (row < n) & (first > 0), 0.0)
    tl.store(row_sums + row, total, row < n)
