"""The mutual-information loss (Eqs. 7–9), per pair of rows of z_s and z_t: device functions.

Forward: row norms → `potential_tile`, a tile of W and its share of the loss → `multiply`, W times ẑ and the projection.
The saved gradient needs no arithmetic in the backward pass but the upstream factor.

Every row z is used as s·z with a power of two s, 1 unless the row's size is extreme; r = 1/‖s·z‖, 0 for a zero row.
What is stored of W is V_ij = K r_i W_ij r_j, symmetric too, so that Σ_j V_ij s_j z_j = K r_i Σ_j W_ij ẑ_j needs no
other factor; K is 1 except in float16, whose range is short. The tiles (i, j ≥ i) are kept, each BLOCK × BLOCK and
contiguous, block rows one after another. csrc/README.md derives the formulas.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.numerics import as_operand, as_read, divide_or_zero, inverse_power, power_of_two


@triton.jit
def add_to_norms(unit, square, x):
    """Σ x² per row in units of unit², which grows with the largest entry seen, so that squares stay in range."""
    larger = tl.maximum(unit, power_of_two(tl.max(tl.abs(x), 1)))
    shrink = unit * inverse_power(larger)
    scaled = x * inverse_power(larger)[:, None]
    return larger, square * (shrink * shrink) + tl.sum(scaled * scaled, 1)


@triton.jit
def scale_and_rnorm(unit, square, spread, DTYPE: tl.constexpr):
    """(s, r) per row, ‖z‖² = unit² · square. Rows whose raw products are safe in DTYPE keep s = 1 and the fast path."""
    zero = square == 0
    root = tl.sqrt(tl.where(zero, 1.0, square))
    if tl.float16 == DTYPE:
        # K r_i W_ij r_j stays within the range of float16 if all rows have ‖s·z‖/√K in [1/8, 8].
        size = root * unit
        tame = zero | ((size * size >= spread / 64) & (size * size <= spread * 64))
        scale = tl.where(tame, 1.0, tl.sqrt(spread) * inverse_power(power_of_two(size)))
        rnorm = 1 / (size * scale)
    else:
        limit = 2.0**400 if tl.float64 == DTYPE else 2.0**40
        tame = zero | ((unit >= 1 / limit) & (unit <= limit))
        scale = tl.where(tame, 1.0, inverse_power(unit))
        rnorm = 1 / tl.where(tame, root * unit, root)
    return scale, tl.where(zero, 0.0, rnorm)


@triton.jit
def tile_index(i, j, first, tiles):
    """Position of tile (i, j ≥ i) among those of the panel that begins with block row `first`."""
    row = (i - first).to(tl.int64)
    return row * (tiles - first) - row * (row - 1) // 2 + (j - i)


@triton.jit
def coefficients(counts, logged, blocks, LOG: tl.constexpr, CHUNK: tl.constexpr, ACC: tl.constexpr):
    """(c, c_s/c, c_st/c): c_s = 1/m_s², c_st = 1/m_st², 0 where nothing is counted; c the larger one.

    In the log form they hold the sums of all tiles, so that an earlier launch has left them in `logged`.
    """
    if LOG:
        c_s, c_st = tl.load(logged), tl.load(logged + 1)
    else:
        m_s, m_st = count(counts, blocks, 0, CHUNK, ACC), count(counts, blocks, 1, CHUNK, ACC)
        c_s, c_st = divide_or_zero(1.0, m_s * m_s), divide_or_zero(1.0, m_st * m_st)
    # NaN > x is false, and c_s is NaN where c_st is.
    c = tl.where(c_st > c_s, c_st, c_s)
    return c, divide_or_zero(c_s, c), divide_or_zero(c_st, c)


@triton.jit
def count(counts, blocks, row, CHUNK: tl.constexpr, ACC: tl.constexpr):
    """Sum over the blocks of rows of what `counts` (4, blocks) holds in one of its rows."""
    total = tl.zeros((CHUNK,), ACC)
    for start in range(0, blocks, CHUNK):
        block = start + tl.arange(0, CHUNK)
        total += tl.load(counts + row * blocks + block, block < blocks, 0.0)
    return tl.sum(total, 0)


@triton.jit
def dot_tile(
    z, stride, across, padded, row_i, row_j, scale_i, scale_j, n, d,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(s_i z_i)·(s_j z_j) for the rows of two blocks."""
    if z.dtype.element_ty == tl.float16:
        # Products of float16 are far from the ends of float32, so the scales can wait.
        products = _dot_rows(z, stride, across, padded, row_i, row_j, scale_i, scale_j, n, d,
                             False, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
        products = products * scale_i[:, None] * scale_j[None, :]
    elif tl.max((scale_i != 1).to(tl.int32) | (scale_j != 1).to(tl.int32), 0) == 0:
        products = _dot_rows(z, stride, across, padded, row_i, row_j, scale_i, scale_j, n, d,
                             False, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        products = _dot_rows(z, stride, across, padded, row_i, row_j, scale_i, scale_j, n, d,
                             True, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
    return products


@triton.jit
def _dot_rows(
    z, stride, across, padded, row_i, row_j, scale_i, scale_j, n, d,
    SCALED: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    depth = tl.arange(0, DEPTH)
    products = tl.zeros((BLOCK, BLOCK), ACC)
    # Extreme rows are rare: their loop is not worth a pipeline's registers and shared memory.
    STAGES: tl.constexpr = 1 if SCALED else None
    for k in tl.range(0, d, DEPTH, num_stages=STAGES):
        if across is not None and z.dtype.element_ty == tl.float32 and PRECISION == "ieee":
            # Without matrix units the right operand is read along its rows: from the transposed copy.
            column = across + (k + depth).to(tl.int64)[:, None] * padded
            a = tl.trans(tl.load(column + row_i[None, :], (depth < d - k)[:, None], 0.0))
            b = tl.load(column + row_j[None, :], (depth < d - k)[:, None], 0.0)
        else:
            inside = (depth < d - k)[None, :]
            a = tl.load(
                z + row_i.to(tl.int64)[:, None] * stride + (k + depth)[None, :], (row_i < n)[:, None] & inside, 0.0
            )
            b = tl.load(
                z + row_j.to(tl.int64)[:, None] * stride + (k + depth)[None, :], (row_j < n)[:, None] & inside, 0.0
            )
            b = tl.trans(b)
        if SCALED:
            a = (a.to(ACC) * scale_i[:, None]).to(a.dtype)
            b = (b.to(ACC) * scale_j[None, :]).to(b.dtype)
        products = tl.dot(a, b, products, input_precision=PRECISION, out_dtype=ACC)
    return products


@triton.jit
def potential_tile(g_s, g_t, c_s, c_st):
    """The epilogue of a tile: (loss per pair, ∂/∂G_s and ∂/∂G_t, each over 2) of c_s G_s² − c_st G_s² G_t²."""
    w_s = g_s * (c_s - c_st * g_t * g_t)
    return w_s * g_s, w_s, -c_st * g_s * g_s * g_t


@triton.jit
def keep_tile(
    w, g, rnorm_i, rnorm_j, weights, projections, index, spread,
    DTYPE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Store a tile of V, and its share of K ẑ_i·Σ_j W_ij ẑ_j, formed of V as rounded, so that the projection is one."""
    local = tl.arange(0, BLOCK)
    # V_ij = K r_i W_ij r_j
    v = as_operand(w * (rnorm_i * spread)[:, None] * rnorm_j[None, :], DTYPE, PRECISION)
    tl.store(weights + index * BLOCK * BLOCK + local[:, None] * BLOCK + local[None, :], v)
    # V_ij (s_i z_i)·(s_j z_j) = V_ij G_ij / (r_i r_j), with G as it is at hand; where r is 0, so is V
    norm_i, norm_j = divide_or_zero(1.0, rnorm_i), divide_or_zero(1.0, rnorm_j)
    share = v.to(ACC) * g * norm_i[:, None] * norm_j[None, :]
    tl.store(projections + index * 2 * BLOCK + local, tl.sum(share, 1))
    tl.store(projections + (index * 2 + 1) * BLOCK + local, tl.sum(share, 0))


@triton.jit
def multiply(
    z, stride, across, padded, scales, rnorms, weights, projections, carried, out,
    i, column_block, first, last, tiles, n, d, c, wild, spread,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PANELS: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """∂L/∂z of block row i, some columns: 4c (g − (g·ẑ_i) ẑ_i)/‖z_i‖ with g = Σ_j W_ij ẑ_j.

    A panel of V holds tiles (i, j ≥ i) with first ≤ i < last; earlier panels have left their share of K r_i g in `out`,
    and of K g·ẑ_i in `carried`.
    """
    row = i * BLOCK + tl.arange(0, BLOCK)
    columns = column_block * COLUMNS + tl.arange(0, COLUMNS)
    here = row.to(tl.int64)[:, None] * d + columns[None, :]
    inside = (row < n)[:, None] & (columns < d)[None, :]
    g = tl.zeros((BLOCK, COLUMNS), ACC)
    if PANELS:
        g = tl.load(out + here, inside & (first > 0), 0.0)
    # Left of the diagonal the stored tiles are (j, i): read transposed.
    left, right = tl.minimum(i, last), tl.where(i < last, tiles, i)
    if wild > 0:
        g = _add_rows(g, z, stride, across, padded, scales, weights, i, first, left, first, tiles, n, d, columns,
                      True, True, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
        g = _add_rows(g, z, stride, across, padded, scales, weights, i, i, right, first, tiles, n, d, columns,
                      False, True, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        g = _add_rows(g, z, stride, across, padded, scales, weights, i, first, left, first, tiles, n, d, columns,
                      True, False, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
        g = _add_rows(g, z, stride, across, padded, scales, weights, i, i, right, first, tiles, n, d, columns,
                      False, False, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    projection = _projection(projections, i, first, tl.where(i < last, tiles, last), tiles, BLOCK, ACC)
    if PANELS:
        # Programs of a block row that is not finished share no reads with the one that stores.
        mine = (first > 0) & ((i < last) | (column_block == 0))
        projection += tl.load(carried + row, (row < n) & mine, 0.0)
        if i >= last:
            tl.store(out + here, g, inside)
            tl.store(carried + row, projection, (row < n) & (column_block == 0))
    if (not PANELS) or i < last:
        scale = tl.load(scales + row, row < n, 1.0)
        rnorm = tl.load(rnorms + row, row < n, 0.0)
        own = tl.load(z + row.to(tl.int64)[:, None] * stride + columns[None, :], inside, 0.0).to(ACC)
        own = as_read(own, PRECISION) * scale[:, None]
        # 4c s (K r g − (K g·ẑ) r² s z)/K
        g -= (projection * rnorm * rnorm)[:, None] * own
        tl.store(out + here, g * (4 * c / spread * scale)[:, None], inside)


@triton.jit
def _add_rows(
    g, z, stride, across, padded, scales, weights, i, begin, end, first, tiles, n, d, columns,
    TRANSPOSED: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """g + Σ_k V_ik s_k z_k for the rows k of the tiles begin ≤ k < end."""
    local, depth = tl.arange(0, BLOCK), tl.arange(0, DEPTH)
    STAGES: tl.constexpr = 1 if SCALED else None
    # Float32 in one chain of n additions would lose digits to its length: it is added up in chains of PART rows.
    CHAINS: tl.constexpr = z.dtype.element_ty == tl.float32 and PRECISION == "ieee"
    PART: tl.constexpr = 256
    part = tl.zeros((BLOCK, COLUMNS), ACC) if CHAINS else g
    for start in tl.range(begin * BLOCK, end * BLOCK, DEPTH, num_stages=STAGES):
        k, within = start // BLOCK, tl.multiple_of(start % BLOCK, DEPTH)
        row = start + depth
        if across is not None and PRECISION == "tf32":
            # wgmma and tcgen05 take tf32 along k only, and mma.sync reads it fastest so: from the transposed copy.
            x = tl.load(across + columns.to(tl.int64)[:, None] * padded + row[None, :], (columns < d)[:, None], 0.0)
            x = tl.trans(x)
        else:
            place = z + row.to(tl.int64)[:, None] * stride + columns[None, :]
            x = tl.load(place, (row < n)[:, None] & (columns < d)[None, :], 0.0)
        if SCALED:
            x = (x.to(ACC) * tl.load(scales + row, row < n, 1.0)[:, None]).to(x.dtype)
        if TRANSPOSED:
            tile = weights + (tile_index(k, i, first, tiles) * BLOCK + within) * BLOCK
            if z.dtype.element_ty.primitive_bitwidth == 16:
                v = tl.trans(tl.load(tile + depth[:, None] * BLOCK + local[None, :]))
            else:
                # Only 16-bit operands are transposed by `ldmatrix`; others keep memory's order, which has no conflicts.
                v = tl.load(tile + local[:, None] + depth[None, :] * BLOCK)
        else:
            tile = weights + tile_index(i, k, first, tiles) * BLOCK * BLOCK + within
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
