"""The Gram term of one side or both (Eqs. 7–9), per pair of rows: device functions.

Forward: row norms → `dot_tile`, a tile of G of each side → the loss's tile, W → `keep_tile` → `multiply`, W times ẑ and
the projection. The saved gradient needs no arithmetic in the backward pass but the upstream factor.

Every row z is used as s·z with a power of two s, 1 unless the row's size is extreme; r = 1/‖s·z‖, 0 for a zero row.
What is stored of W is V_ij = K r_i W_ij r_j, symmetric too, so that Σ_j V_ij s_j z_j = K r_i Σ_j W_ij ẑ_j needs no
other factor; K (`half_range`) is 1 except in float16, whose range is short. The tiles (i, j ≥ i) are kept, each
BLOCK × BLOCK and contiguous, block rows one after another. docs/design/mathematics.md derives the formulas; the records
that `own`, `other` and `rows` stand for are in records.py.

Own rows meet the rows of `other`: themselves in a triangle (own is other), or in a RECTANGLE rows (m) of which row
i + offset is own row i, and of which all tiles (i, j) are kept.
"""

import triton
import triton.language as tl

from itrd_kernels.backends.triton.losses.mutual_information import coefficients as mutual_information_coefficients
from itrd_kernels.backends.triton.losses.mutual_information import factored
from itrd_kernels.backends.triton.numerics import LN2, as_operand, as_read, divide_or_zero
from itrd_kernels.backends.triton.rows import count, rows_to_read


@triton.jit
def tile_of(program, first, last, tiles):
    """(i, j ≥ i) of a program, and whether there is one: block rows q and last−1−q have together a fixed number."""
    height, width = last - first, tiles - first
    pair, place = program // (2 * width - height + 1), program % (2 * width - height + 1)
    second = place >= width - pair
    row = tl.where(second, height - 1 - pair, pair)
    i = first + row
    return i, i + tl.where(second, place - (width - pair), place), (row != pair) | (~second)


@triton.jit
def tile_index(i, j, first, tiles, RECTANGLE: tl.constexpr):
    """Position of tile (i, j), j ≥ i in a triangle, among those of the panel that begins with block row `first`."""
    row = (i - first).to(tl.int64)
    return row * tiles + j if RECTANGLE else row * (tiles - first) - row * (row - 1) // 2 + (j - i)


@triton.jit
def coefficients(rows, blocks, LOG: tl.constexpr, ACC: tl.constexpr):
    """(c, c_s/c, c_st/c) of L_mi.

    In the log form they hold the sums of all tiles, so that an earlier launch has left them in rows.coefficients.
    """
    if LOG:
        c_s, c_st = tl.load(rows.coefficients), tl.load(rows.coefficients + 1)
    else:
        m_s, m_st = count(rows, blocks, 0, ACC), count(rows, blocks, 1, ACC)
        c_s, c_st = mutual_information_coefficients(m_s, m_st, 0.0, 0.0)
    return factored(c_s, c_st, 0.0, 0.0)


@triton.jit
def dot_tile(
    own, other, padded, row_i, row_j, n, m,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(s_i z_i)·(s_j z_j) for the rows of two blocks."""
    scale_i = tl.load(own.norms + row_i, row_i < n, 1.0)
    scale_j = tl.load(other.norms + row_j, row_j < m, 1.0)
    inside_i, inside_j = rows_to_read(own, row_i, n), rows_to_read(other, row_j, m)
    if own.z.dtype.element_ty == tl.float16:
        # Products of float16 are far from the ends of float32, so the scales can wait.
        products = _dot_rows(own, other, padded, row_i, row_j, scale_i, scale_j, inside_i, inside_j,
                             False, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
        products = products * scale_i[:, None] * scale_j[None, :]
    elif tl.max((scale_i != 1).to(tl.int32) | (scale_j != 1).to(tl.int32), 0) == 0:
        products = _dot_rows(own, other, padded, row_i, row_j, scale_i, scale_j, inside_i, inside_j,
                             False, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        products = _dot_rows(own, other, padded, row_i, row_j, scale_i, scale_j, inside_i, inside_j,
                             True, BLOCK, DEPTH, PRECISION, ACC)  # fmt: skip
    return products


@triton.jit
def _dot_rows(
    own, other, padded, row_i, row_j, scale_i, scale_j, inside_i, inside_j,
    SCALED: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    width = own.width
    depth = tl.arange(0, DEPTH)
    products = tl.zeros((BLOCK, BLOCK), ACC)
    # Extreme rows are rare: their loop is not worth a pipeline's registers and shared memory.
    STAGES: tl.constexpr = 1 if SCALED else None
    for k in tl.range(0, width, DEPTH, num_stages=STAGES):
        if own.transposed is not None and own.z.dtype.element_ty == tl.float32 and PRECISION == "ieee":
            # Without matrix units the right operand is read along its rows: from the transposed copy.
            row_k = (k + depth).to(tl.int64)[:, None] * padded
            a = tl.trans(tl.load(own.transposed + row_k + row_i[None, :], (depth < width - k)[:, None], 0.0))
            b = tl.load(other.transposed + row_k + row_j[None, :], (depth < width - k)[:, None], 0.0)
        else:
            inside = (depth < width - k)[None, :]
            place_i = own.z + row_i.to(tl.int64)[:, None] * own.stride + (k + depth)[None, :]
            place_j = other.z + row_j.to(tl.int64)[:, None] * other.stride + (k + depth)[None, :]
            a = tl.load(place_i, inside_i[:, None] & inside, 0.0)
            b = tl.trans(tl.load(place_j, inside_j[:, None] & inside, 0.0))
        if SCALED:
            a = (a.to(ACC) * scale_i[:, None]).to(a.dtype)
            b = (b.to(ACC) * scale_j[None, :]).to(b.dtype)
        products = tl.dot(a, b, products, input_precision=PRECISION, out_dtype=ACC)
    return products


@triton.jit
def cosines(own, other, products, row_i, row_j, n, m, diagonal, ACC: tl.constexpr):
    """(G, r_i, r_j) of a tile of products; on the diagonal G is exactly 1, or 0 for a zero row."""
    rnorm_i = tl.load(own.norms + n + row_i, row_i < n, 0.0)
    rnorm_j = tl.load(other.norms + m + row_j, row_j < m, 0.0)
    g = tl.where(diagonal, (rnorm_i != 0).to(ACC)[:, None], products * rnorm_i[:, None] * rnorm_j[None, :])
    return g, rnorm_i, rnorm_j


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
    own, other, padded, i, column_block, first, last, tiles, n, m, c, extreme,
    RECTANGLE: tl.constexpr, PANELS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """∂L/∂z of block row i, some columns: 4c (g − (g·ẑ_i) ẑ_i)/‖z_i‖ with g = Σ_j W_ij ẑ_j.

    A panel of V holds block rows first ≤ i < last, in a triangle with PANELS not complete: earlier panels have left
    their share of K r_i g in own.gradient, and of K g·ẑ_i in own.partial_projection.
    """
    row = i * BLOCK + tl.arange(0, BLOCK)
    columns = column_block * COLUMNS + tl.arange(0, COLUMNS)
    here = row.to(tl.int64)[:, None] * own.width + columns[None, :]
    inside = (row < n)[:, None] & (columns < own.width)[None, :]
    g = tl.zeros((BLOCK, COLUMNS), ACC)
    if PANELS:
        g = tl.load(own.gradient + here, inside & (first > 0), 0.0)
    if extreme > 0:
        g = _add_tiles(own, other, g, padded, i, first, last, tiles, m, columns,
                       RECTANGLE, True, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        g = _add_tiles(own, other, g, padded, i, first, last, tiles, m, columns,
                       RECTANGLE, False, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    projection = sum_of_shares(own.projections, i, first, last, tiles, RECTANGLE, BLOCK, ACC)
    if PANELS:
        # Programs of a block row that is not finished share no reads with the one that stores.
        mine = (first > 0) & ((i < last) | (column_block == 0))
        projection += tl.load(own.partial_projection + row, (row < n) & mine, 0.0)
        if i >= last:
            tl.store(own.gradient + here, g, inside)
            tl.store(own.partial_projection + row, projection, (row < n) & (column_block == 0))
    if (not PANELS) or i < last:
        scale = tl.load(own.norms + row, row < n, 1.0)
        rnorm = tl.load(own.norms + n + row, row < n, 0.0)
        read = rows_to_read(own, row, n)
        place = own.z + row.to(tl.int64)[:, None] * own.stride + columns[None, :]
        z = tl.load(place, read[:, None] & (columns < own.width)[None, :], 0.0).to(ACC)
        z = as_read(z, PRECISION) * scale[:, None]
        # 4c s (K r g − (K g·ẑ) r² s z)/K
        g -= (projection * rnorm * rnorm)[:, None] * z
        g = g * (4 * c / own.half_range * scale)[:, None]
        if own.keep is not None:
            g = tl.where(read[:, None], g, 0.0)
        tl.store(own.gradient + here, g, inside)


@triton.jit
def _add_tiles(
    own, other, g, padded, i, first, last, tiles, m, columns,
    RECTANGLE: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """g + Σ_k V_ik s_k z_k for the rows k of all tiles of block row i that the panel holds."""
    if RECTANGLE:
        g = _add_rows(own, other, g, padded, i, 0, tiles, first, tiles, m, columns,
                      RECTANGLE, False, SCALED, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    else:
        # Left of the diagonal the stored tiles are (j, i): read transposed.
        left, right = tl.minimum(i, last), tl.where(i < last, tiles, i)
        g = _add_rows(own, other, g, padded, i, first, left, first, tiles, m, columns,
                      RECTANGLE, True, SCALED, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
        g = _add_rows(own, other, g, padded, i, i, right, first, tiles, m, columns,
                      RECTANGLE, False, SCALED, BLOCK, COLUMNS, DEPTH, PRECISION, ACC)  # fmt: skip
    return g


@triton.jit
def _add_rows(
    own, other, g, padded, i, begin, end, first, tiles, m, columns,
    RECTANGLE: tl.constexpr, TRANSPOSED: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """g + Σ_k V_ik s_k z_k for the rows k of the tiles begin ≤ k < end."""
    z, width = other.z, other.width
    local, depth = tl.arange(0, BLOCK), tl.arange(0, DEPTH)
    STAGES: tl.constexpr = 1 if SCALED else None
    # Float32 in one chain of n additions would lose digits to its length: it is added up in chains of PART rows.
    CHAINS: tl.constexpr = z.dtype.element_ty == tl.float32 and PRECISION == "ieee"
    PART: tl.constexpr = 256
    part = tl.zeros((BLOCK, COLUMNS), ACC) if CHAINS else g
    for start in tl.range(begin * BLOCK, end * BLOCK, DEPTH, num_stages=STAGES):
        k, within = start // BLOCK, tl.multiple_of(start % BLOCK, DEPTH)
        row = start + depth
        if other.transposed is not None and PRECISION == "tf32":
            # wgmma and tcgen05 take tf32 along k only, and mma.sync reads it fastest so: from the transposed copy.
            place = other.transposed + columns.to(tl.int64)[:, None] * padded + row[None, :]
            x = tl.trans(tl.load(place, (columns < width)[:, None], 0.0))
        else:
            place = z + row.to(tl.int64)[:, None] * other.stride + columns[None, :]
            x = tl.load(place, rows_to_read(other, row, m)[:, None] & (columns < width)[None, :], 0.0)
        if SCALED:
            x = (x.to(ACC) * tl.load(other.norms + row, row < m, 1.0)[:, None]).to(x.dtype)
        if TRANSPOSED:
            tile = own.weights + (tile_index(k, i, first, tiles, RECTANGLE) * BLOCK + within) * BLOCK
            if z.dtype.element_ty.primitive_bitwidth == 16:
                v = tl.trans(tl.load(tile + depth[:, None] * BLOCK + local[None, :]))
            else:
                # Only 16-bit operands are transposed by `ldmatrix`; others keep memory's order, which has no conflicts.
                v = tl.load(tile + local[:, None] + depth[None, :] * BLOCK)
        else:
            tile = own.weights + tile_index(i, k, first, tiles, RECTANGLE) * BLOCK * BLOCK + within
            v = tl.load(tile + local[:, None] * BLOCK + depth[None, :])
        part = tl.dot(v, x, part, input_precision=PRECISION, out_dtype=ACC)
        if CHAINS:  # noqa: SIM102
            if (start + DEPTH) % PART == 0:
                g += part
                part = tl.zeros((BLOCK, COLUMNS), ACC)
    return g + part if CHAINS else part


@triton.jit
def sum_of_shares(shares, i, first, last, tiles, RECTANGLE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Sums over the rows of block row i: the shares (tiles, 2, BLOCK) that the panel's tiles (i, k) have left."""
    local = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), ACC)
    if RECTANGLE:
        begin, end = 0, tiles
    else:
        begin, end = first, tl.where(i < last, tiles, last)
    for start in range(begin, end, 16):
        k = start + tl.arange(0, 16)
        if RECTANGLE:
            slot = tile_index(i, k, first, tiles, True) * 2
        else:
            slot = tile_index(tl.minimum(k, i), tl.maximum(k, i), first, tiles, False) * 2 + (k < i)
        total += tl.sum(tl.load(shares + slot[:, None] * BLOCK + local[None, :], (k < end)[:, None], 0.0), 0)
    return total


@triton.jit
def finish_sums(rows, blocks, tiles, LOG: tl.constexpr, ACC: tl.constexpr):
    """L_mi from the tiles' sums; in the log form also c_s and c_st."""
    if not LOG:
        c, _, _ = coefficients(rows, blocks, False, ACC)
        value = c * sum_of(rows.sums, tiles, ACC)
    else:
        sum_s, sum_st = sum_of(rows.sums, tiles, ACC), sum_of(rows.sums + tiles, tiles, ACC)
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
def sum_of(values, length, ACC: tl.constexpr):
    """Σ values (length,) in the type ACC."""
    total = tl.zeros((1024,), ACC)
    for start in range(0, length, 1024):
        index = start + tl.arange(0, 1024)
        total += tl.load(values + index, index < length, 0.0)
    return tl.sum(total, 0)
