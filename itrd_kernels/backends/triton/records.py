"""What travels together to a kernel, as one argument each.

Triton takes tuples of tensors, numbers and None apart at a launch, and compiles anew where a None comes or goes. The
numbers that must not do that (n, tiles, panels) stay outside.
"""

from typing import NamedTuple

from torch import Tensor


class Side(NamedTuple):
    """Student or teacher of the Gram term, or of its column rows; "wide" is float64 for float64 features, else float32.

    Attributes:
        z: features (n, width); None in `statistics` where the correlation's loop has read them already.
        width, stride: features of a row, and elements from one row to the next.
        transposed: a copy (width, padded), zero in the columns beyond n, or None.
        norms: wide (2, n): a power of two s, 1 but for extreme rows, and r = 1/‖s·z‖, 0 for a zero row.
        half_range: K of gram.py, 1 but for float16.
        weights: tiles of V (tiles, BLOCK, BLOCK) in the features' dtype, or None: no gradient is wanted.
        projections: wide (tiles, 2, BLOCK), each tile's share of K ẑ·g for its rows and its columns.
        partial_projection: wide (n,), the share of earlier panels, or None: all tiles are in one.
        gradient: wide (n, width), ∂L_mi/∂z, or another loss's.
        keep: bool (n,), False for a row that does not count and must not be read, or None.
        statistic: wide (n,), what a pair loss is told of each row, or None.
        row_shares: wide (tiles, 2, BLOCK), each tile's share of the row sums of its rows and its columns, or None.
    """

    z: Tensor | None
    width: int
    stride: int
    transposed: Tensor | None
    norms: Tensor | None
    half_range: float
    weights: Tensor | None
    projections: Tensor | None
    partial_projection: Tensor | None
    gradient: Tensor | None
    keep: Tensor | None = None
    statistic: Tensor | None = None
    row_shares: Tensor | None = None


class Columns(NamedTuple):
    """The correlation term: z_e (n, d_t) beside the teacher's features, and what is known of their columns.

    Attributes:
        z: z_e, and `stride` the elements from one of its rows to the next.
        partials: wide (blocks, 5, d_t), moments of one block of rows each.
        moments: wide (8, d_t), as schema.py lists them.
    """

    z: Tensor | None
    stride: int
    partials: Tensor | None
    moments: Tensor | None


class Rows(NamedTuple):
    """What the rows of both sides add up to.

    Attributes:
        counts: wide (4, blocks): non-zero rows of the student, pairs, extreme rows of the student and of the teacher.
        sums: wide (2, tiles): each tile's share of the loss; in the log form of both potentials.
        coefficients: wide (2,), c_s and c_st of the log form, or None.
    """

    counts: Tensor | None
    sums: Tensor | None
    coefficients: Tensor | None


class PairRows(NamedTuple):
    """The same of the operator `gram`, whose column rows are the ones that are counted.

    Attributes:
        counts: wide (4, blocks), as in Rows.
        sums: wide (2, tiles): each tile's share of the two sums, the first without the coefficient factored out.
        coefficients: wide (2,), or None: from the counts or the parameters.
        row_sums: wide (2, n) of student and teacher, or None.
        result: float64 (4,), what dispatch.GramOutputs calls sums.
        ticket: int32, by which the last program to finish knows that it is.
    """

    counts: Tensor
    sums: Tensor
    coefficients: Tensor | None
    row_sums: Tensor | None
    result: Tensor
    ticket: Tensor


class Scalars(NamedTuple):
    """The losses, wide scalars, and the ticket (int32) by which the last program to finish knows that it is."""

    total: Tensor
    correlation: Tensor
    mutual_information: Tensor
    ticket: Tensor


class Upstream(NamedTuple):
    """Wide scalars ∂/∂total, ∂/∂correlation and ∂/∂mutual_information, each None where nothing depends on it."""

    total: Tensor | None
    correlation: Tensor | None
    mutual_information: Tensor | None


class Gradient(NamedTuple):
    """The gradient of one input in the backward pass.

    Attributes:
        z: features (n, width) for the correlation term, `stride` elements from row to row, or None.
        dgram: wide (n, width), what the Gram term has saved for it, or None: zero.
        gradient: (n, width) in the features' dtype, to be written, or None: not wanted.
    """

    z: Tensor | None
    stride: int
    dgram: Tensor | None
    gradient: Tensor | None
