"""The mutual-information loss, Eqs. 7 to 9, on cosines or on a polynomial of them (section 4.2)."""

from collections.abc import Sequence

from torch import Tensor

from itrd_kernels.formulas.normalise import at_least_float32, normalise_rows
from itrd_kernels.formulas.pairs import Entries
from itrd_kernels.formulas.product import product


def mutual_information(z_s: Tensor, z_t: Tensor, log: bool = False, kernel: tuple[float, int] | None = None) -> Tensor:
    """‖G_s‖² − ‖G_st‖² of (n, d_s) and (n, d_t); with `log`, log2 of each (Eq. 9). G_st = G_s ∘ G_t, trace one.

    With kernel = (c, p) the cosines g of rows that are not zero become (g + c)^p.
    """
    s, t = normalise_rows(at_least_float32(z_s)), normalise_rows(at_least_float32(z_t))
    g_s, g_t = product(s, s), product(t, t)
    alive_s, alive_t = (z_s != 0).any(1), (z_t != 0).any(1)
    # The traces are the numbers of rows that are not zero, and of pairs in which neither is, times κ(1).
    trace_s, trace_st = alive_s.sum(), (alive_s & alive_t).sum()
    if kernel is not None:
        c, p = kernel
        g_s = (g_s + c).pow(p).where(alive_s[:, None] & alive_s, 0.0)
        g_t = (g_t + c).pow(p).where(alive_t[:, None] & alive_t, 0.0)
        one = (1 + c) ** p
        trace_s, trace_st = trace_s * one, trace_st * one**2
    potential_s = _over_square(g_s.square().sum(), trace_s)
    potential_st = _over_square((g_s * g_t).square().sum(), trace_st)
    if log:
        return _log2_or_zero(potential_s) - _log2_or_zero(potential_st)
    return potential_s - potential_st


def _over_square(total: Tensor, trace: Tensor) -> Tensor:
    """total / trace², and 0 where nothing was counted."""
    return total / trace.where(trace != 0, 1).to(total.dtype).square()


def _log2_or_zero(potential: Tensor) -> Tensor:
    return potential.where(potential != 0, 1.0).log2()


def mutual_information_entries(
    g: Tensor, h: Tensor, rows: Tensor, columns: Tensor, coefficients: Tensor, parameters: Sequence[float]
) -> Entries:
    """What entries g of G_s and h of G_t add to the sums of `gram`, and W there."""
    c_s, c_st = coefficients
    w_s = g * (c_s - c_st * h.square())
    return Entries(g * w_s, (g * h).square(), w_s, -c_st * g.square() * h)


def polynomial_entries(
    g: Tensor, h: Tensor, rows: Tensor, columns: Tensor, coefficients: Tensor, parameters: Sequence[float]
) -> Entries:
    """The same of G = (g + c)^p, 0 where a row is zero; parameters (c, p)."""
    c, p = parameters
    alive_s, alive_t = rows[:, :, None] * columns[:, None, :]
    of = mutual_information_entries(alive_s * (g + c) ** p, alive_t * (h + c) ** p, rows, columns, coefficients, ())
    # ∂(g + c)^p / ∂g
    slope_s, slope_t = p * (g + c) ** (p - 1), p * (h + c) ** (p - 1)
    return of._replace(w_s=of.w_s * alive_s * slope_s, w_t=of.w_t * alive_t * slope_t)


def coefficients_of(counts: Tensor, parameters: Sequence[float]) -> Tensor:
    """(c_s, c_st) = (1/tr(G_s)², 1/tr(G_st)²) from the counts (m_s, m_st) of rows, 0 where nothing was counted."""
    c, p = parameters or (0.0, 1.0)
    traces = counts * counts.new_tensor([(1 + c) ** p, (1 + c) ** (2 * p)])
    return traces.where(counts != 0, float("inf")).reciprocal().square()
