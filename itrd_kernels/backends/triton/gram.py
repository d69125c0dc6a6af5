"""The Gram term of one side or both (Eqs. 7–9), per pair of rows: device functions.

Forward: row norms → `dot_tile`, a tile of G of each side → the loss's tile, W → `keep_tile` → `multiply`, W times ẑ and
the projection. The saved gradient needs no arithmetic in the backward pass but the upstream factor.

Every row z is used as s·z with a power of two s, 1 unless the row's size is extreme; r = 1/‖s·z‖, 0 for a zero row.
What is stored of W is V_ij = K r_i W_ij r_j, symmetric too, so that Σ_j V_ij s_j z_j = K r_i Σ_j W_ij ẑ_j needs no
other factor; K (`half_range`) is 1 except in float16, whose range is short. The tiles (i, j ≥ i) are kept, each
BLOCK × BLOCK and contiguous, block rows one after another. docs/design/mathematics.md derives the formulas; the records
that `side` and `rows` stand for are in records.py.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.numerics import LN2, as_operand, as_read, divide_or_zero, inverse_power, power_of_two


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
def tile_index(i, j, first, tiles):
    """Position of tile (i, j ≥ i) among those of the panel that begins with block row `first`."""
    row = (i - first).to(tl.int64)
    return row * (tiles - first) - row * (row - 1) // 2 + (j - i)


@triton.jit
def coefficients(rows, blocks, LOG: tl.constexpr, ACC: tl.constexpr):
    """(c, c_s/c, c_st/c): c_s = 1/m_s², c_st = 1/m_st², 0 where nothing is counted; c the larger one.

    In the log form they hold the sums of all tiles, so that an earlier launch has left them in rows.coefficients.
    """
    if LOG:
        c_s, c_st = tl.load(rows.coefficients), tl.load(rows.coefficients + 1)
    else:
        m_s, m_st = count(rows, blocks, 0, ACC), count(rows, blocks, 1, ACC)
        c_s, c_st = divide_or_zero(1.0, m_s * m_s), divide_or_zero(1.0, m_st * m_st)
    # NaN > x is false, and c_s is NaN where c_st is.
    c = tl.where(c_st > c_s, c_st, c_s)
    return c, divide_or_zero(c_s, c), divide_or_zero(c_st, c)


@triton.jit
def count(rows, blocks, kind, ACC: tl.constexpr):
    """Sum over the blocks of rows of what rows.counts (4, blocks) holds of one kind."""
    CHUNK: tl.constexpr = 128
    total = tl.zeros((CHUNK,), ACC)
    for start in range(0, blocks, CHUNK):
        block = start + tl.arange(0, CHUNK)
        total += tl.load(rows.counts + kind * blocks + block, block < blocks, 0.0)
    return tl.sum(total, 0)


@triton.jit
def dot_tile(
    side, padded, row_i, row_j, n, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr
):
    """(s_i z_i)·(s_j z_j) for the rows of two blocks."""
    scale_i = tl.load(side.norms + row_i, row_i < n, 1.0)
    scale_j = tl.load(side.norms + row_j, row_j < n, 1.0)
    if side.z.dtype.element_ty == tl.float16:
        # Products of float16 are far from the ends of float32, so the scales can wait.
        products = _dot_rows(side, padded, row_i, row_j, scale_i, scale_j, n, False, BLOCK, DEPTH, PRECISION, ACC)
        products = products * scale_i[:, None] * scale_j[None, :]
    elif tl.max((scale_i != 1).to(tl.int32) | (scale_j != 1).to(tl.int32), 0) == 0:
        products = _dot_rows(side, padded, row_i, row_j, scale_i, scale_j, n, False, BLOCK, DEPTH, PRECISION, ACC)
    else:
        products = _dot_rows(side, padded, row_i, row_j, scale_i, scale_j, n, True, BLOCK, DEPTH, PRECISION, ACC)
    return products


@triton.jit
def _dot_rows(
    side, padded, row_i, row_j, scale_i, scale_j, n,
    SCALED: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    z, width = side.z, side.width
    depth = tl.arange(0, DEPTH)
    products = tl.zeros((BLOCK, BLOCK), ACC)
    # Extreme rows are rare: their loop is not worth a pipeline's registers and shared memory.
    STAGES: tl.constexpr = 1 if SCALED else None
    for k in tl.range(0, width, DEPTH, num_stages=STAGES):
        if side.transposed is not None and z.dtype.element_ty == tl.float32 and PRECISION == "ieee":
            # Without matrix units the right operand is read along its rows: from the transposed copy.
            column = side.transposed + (k + depth).to(tl.int64)[:, None] * padded
            a = tl.trans(tl.load(column + row_i[None, :], (depth < width - k)[:, None], 0.0))
            b = tl.load(column + row_j[None, :], (depth < width - k)[:, None], 0.0)
        else:
            inside = (depth < width - k)[None, :]
            place_i = z + row_i.to(tl.int64)[:, None] * side.stride + (k + depth)[None, :]
            place_j = z + row_j.to(tl.int64)[:, None] * side.stride + (k + depth)[None, :]
            a = tl.load(place_i, (row_i < n)[:, None] & inside, 0.0)
            b = tl.trans(tl.load(place_j, (row_j < n)[:, None] & inside, 0.0))
        if SCALED:
            a = (a.to(ACC) * scale_i[:, None]).to(a.dtype)
            b = (b.to(ACC) * scale_j[None, :]).to(b.dtype)
        products = tl.dot(a, b, products, input_precision=PRECISION, out_dtype=ACC)
    return products


@triton.jit
def mutual_information_tile(g_s, g_t, c_s, c_st):
    """(loss per pair, ∂/∂G_s and ∂/∂G_t, each over 2) of c_s G_s² − c_st G_s² G_t²."""
    w_s = g_s * (c_s - c_st * g_t * g_t)
    return w_s * g_s, w_s, -c_st * g_s * g_s * g_t


@triton.jit
def keep_tile(side, w, g, rnorm_i, rnorm_j, index, PRECISION: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Store a tile of V, and its share of K ẑ_i·Σ_j W_ij ẑ_j, formed of V as rounded, so that the projection is one."""
    local = tl.arange(0, BLOCK)
    # V_ij = K r_i W_ij r_j
    v = as_operand(
        w * (rnorm_i * side.half_range)[:, None] * rnorm_j[None, :], side.weights.dtype.element_ty, PRECISION
    )
    tl.store(side.weights + index * BLOCK * BLOCK + local[:, None] * BLOCK + local[None, :], v)
    # V_ij (s_i z_i)·(s_j z_j) = V_ij G_ij / (r_i r_j), with G as it is at hand; where r is 0, so is V
    norm_i, norm_j = divide_or_zero(1.0, rnorm_i), divide_or_zero(1.0, rnorm_j)
    share = v.to(ACC) * g * norm_i[:, None] * norm_j[None, :]
    tl.store(side.projections + index * 2 * BLOCK + local, tl.sum(share, 1))
    tl.store(side.projections + (index * 2 + 1) * BLOCK + local, tl.sum(share, 0))


@triton.jit
def multiply(
    side, padded, i, column_block, first, last, tiles, n, c, extreme,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PANELS: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """∂L/∂z of block row i, some columns: 4c (g − (g·ẑ_i) ẑ_i)/‖z_i‖ with g = Σ_j W_ij ẑ_j.

    A panel of V holds tiles (i, j ≥ i) with first ≤ i < last; earlier panels have left their share of K r_i g in
    side.gradient, and of K g·ẑ_i in side.partial_projection.
    """
    row = i * BLOCK + tl.arange(0, BLOCK)
    columns = column_block * COLUMNS + tl.arange(0, COLUMNS)
    here = row.to(tl.int64)[:, None] * side.width + columns[None, :]
    inside = (row < n)[:, None] & (columns < side.width)[None, :]
    g = tl.zeros((BLOCK, COLUMNS), ACC)
    if PANELS:
        g = tl.load(side.gradient + here, inside & (first > 0), 0.0)
    # Left of the diagonal the stored tiles are (j, i): read transposed.
    left, right = tl.minimum(i, last), tl.where(i < last, tiles, i)
    if extreme > 0:
        g = _add_rows(side, g, padded, i, first, left, first, tiles, n, columns,
                      True, True, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
        g = _add_rows(side, g, padded, i, i, right, first, tiles, n, columns,
                      False, True, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        g = _add_rows(side, g, padded, i, first, left, first, tiles, n, columns,
                      True, False, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
        g = _add_rows(side, g, padded, i, i, right, first, tiles, n, columns,
                      False, False, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    projection = _projection(side.projections, i, first, tl.where(i < last, tiles, last), tiles, BLOCK, ACC)
    if PANELS:
        # Programs of a block row that is not finished share no reads with the one that stores.
        mine = (first > 0) & ((i < last) | (column_block == 0))
        projection += tl.load(side.partial_projection + row, (row < n) & mine, 0.0)
        if i >= last:
            tl.store(side.gradient + here, g, inside)
            tl.store(side.partial_projection + row, projection, (row < n) & (column_block == 0))
    if (not PANELS) or i < last:
        scale = tl.load(side.norms + row, row < n, 1.0)
        rnorm = tl.load(side.norms + n + row, row < n, 0.0)
        own = tl.load(side.z + row.to(tl.int64)[:, None] * side.stride + columns[None, :], inside, 0.0).to(ACC)
        own = as_read(own, PRECISION) * scale[:, None]
        # 4c s (K r g − (K g·ẑ) r² s z)/K
        g -= (projection * rnorm * rnorm)[:, None] * own
        tl.store(side.gradient + here, g * (4 * c / side.half_range * scale)[:, None], inside)


@triton.jit
def _add_rows(
    side, g, padded, i, begin, end, first, tiles, n, columns,
    TRANSPOSED: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """g + Σ_k V_ik s_k z_k for the rows k of the tiles begin ≤ k < end."""
    z, width = side.z, side.width
    local, depth = tl.arange(0, BLOCK), tl.arange(0, DEPTH)
    STAGES: tl.constexpr = 1 if SCALED else None
    # Float32 in one chain of n additions would lose digits to its length: it is added up in chains of PART rows.
    CHAINS: tl.constexpr = z.dtype.element_ty == tl.float32 and PRECISION == "ieee"
    PART: tl.constexpr = 256
    part = tl.zeros((BLOCK, COLUMNS), ACC) if CHAINS else g
    for start in tl.range(begin * BLOCK, end * BLOCK, DEPTH, num_stages=STAGES):
        k, within = start // BLOCK, tl.multiple_of(start % BLOCK, DEPTH)
        row = start + depth
        if side.transposed is not None and PRECISION == "tf32":
            # wgmma and tcgen05 take tf32 along k only, and mma.sync reads it fastest so: from the transposed copy.
            place = side.transposed + columns.to(tl.int64)[:, None] * padded + row[None, :]
            x = tl.trans(tl.load(place, (columns < width)[:, None], 0.0))
        else:
            place = z + row.to(tl.int64)[:, None] * side.stride + columns[None, :]
            x = tl.load(place, (row < n)[:, None] & (columns < width)[None, :], 0.0)
        if SCALED:
            x = (x.to(ACC) * tl.load(side.norms + row, row < n, 1.0)[:, None]).to(x.dtype)
        if TRANSPOSED:
            tile = side.weights + (tile_index(k, i, first, tiles) * BLOCK + within) * BLOCK
            if z.dtype.element_ty.primitive_bitwidth == 16:
                v = tl.trans(tl.load(tile + depth[:, None] * BLOCK + local[None, :]))
            else:
                # Only 16-bit operands are transposed by `ldmatrix`; others keep memory's order, which has no conflicts.
                v = tl.load(tile + local[:, None] + depth[None, :] * BLOCK)
        else:
            tile = side.weights + tile_index(i, k, first, tiles) * BLOCK * BLOCK + within
            v = tl.load(tile + local[:, None] * BLOCK + depth[None, :])
        part = tl.dot(v, x, part, input_precision=PRECISION, out_dtype=ACC)
        if CHAINS:  # noqa: SIM102
            if (start + DEPTH) % PART == 0:
                g += part
                part = tl.zeros((BLOCK, COLUMNS), ACC)
    return g + part if CHAINS else part


@triton.jit
def _projection(projections, i, begin, end, tiles, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """ẑ_i·g_i of block row i: the shares that the tiles (i, k), begin ≤ k < end, have left."""
    local = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), ACC)
    for start in range(begin, end, 16):
        k = start + tl.arange(0, 16)
        slot = tile_index(tl.minimum(k, i), tl.maximum(k, i), begin, tiles) * 2 + (k < i)
        total += tl.sum(tl.load(projections + slot[:, None] * BLOCK + local[None, :], (k < end)[:, None], 0.0), 0)
    return total


@triton.jit
def finish_sums(rows, blocks, tiles, LOG: tl.constexpr, ACC: tl.constexpr):
    """L_mi from the tiles' sums; in the log form also c_s and c_st."""
    if not LOG:
        c, _, _ = coefficients(rows, blocks, False, ACC)
        value = c * _sum(rows.sums, tiles, ACC)
    else:
        sum_s, sum_st = _sum(rows.sums, tiles, ACC), _sum(rows.sums + tiles, tiles, ACC)
        m_s, m_st = count(rows, blocks, 0, ACC), count(rows, blocks, 1, ACC)
        # ∂ log2 x = ∂x / (x ln 2)
        tl.store(rows.coefficients, divide_or_zero(1.0, sum_s * LN2))
        tl.store(rows.coefficients + 1, divide_or_zero(1.0, sum_st * LN2))
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
