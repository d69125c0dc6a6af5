"""The mutual-information loss, Eqs. 7 to 9."""

from torch import Tensor

from itrd_kernels.formulas.normalise import at_least_float32, normalise_rows
from itrd_kernels.formulas.product import product


def mutual_information(z_s: Tensor, z_t: Tensor, log: bool = False) -> Tensor:
    """‖G_s‖² − ‖G_st‖² of (n, d_s) and (n, d_t); with `log`, log2 of each (Eq. 9). G_st = G_s ∘ G_t, trace one."""
    s, t = normalise_rows(at_least_float32(z_s)), normalise_rows(at_least_float32(z_t))
    g_s, g_t = product(s, s), product(t, t)
    # The traces are the numbers of rows that are not zero, and of pairs in which neither is.
    alive_s, alive_t = (z_s != 0).any(1), (z_t != 0).any(1)
    potential_s = _over_square(g_s.square().sum(), alive_s.sum())
    potential_st = _over_square((g_s * g_t).square().sum(), (alive_s & alive_t).sum())
    if log:
        return _log2_or_zero(potential_s) - _log2_or_zero(potential_st)
    return potential_s - potential_st


def _over_square(total: Tensor, count: Tensor) -> Tensor:
    """total / count², and 0 where nothing was counted."""
    return total / count.clamp(min=1).to(total.dtype).square()


def _log2_or_zero(potential: Tensor) -> Tensor:
    return potential.where(potential != 0, 1.0).log2()
