"""The paper's formulas in plain PyTorch: readable, twice differentiable, what every backend is tested against.

Half-precision inputs are computed in float32. Equation numbers are those of the paper (BMVC 2022).
"""

import torch
from torch import Tensor

from itrd_kernels.backends.product import product


def correlation(z_s: Tensor, z_t: Tensor, alpha: float) -> Tensor:
    """Eq. 6: log2 Σ_j |v_j − 1|^(2α), v = diagonal of the cross-correlation of z_s and z_t, both (n, d)."""
    n = z_s.shape[0]
    # v_j = 1/n Σ_i ŝ_ij t̂_ij
    v = (_normalise_columns(_at_least_float32(z_s)) * _normalise_columns(_at_least_float32(z_t))).sum(0) / n
    # log2 Σ|e|^(2α) = 2α log2 max|e| + log2 Σ(|e|/max|e|)^(2α), since (1/256)^20 underflows float32
    e = (v - 1).abs()
    largest = e.detach().amax()
    return 2 * alpha * largest.log2() + (e / largest).pow(2 * alpha).sum().log2()


def gram(z_s: Tensor, z_t: Tensor, log: bool = False) -> Tensor:
    """‖G_s‖² − ‖G_st‖² of (n, d_s) and (n, d_t); with `log`, log2 of each (Eq. 9). G_st = G_s ∘ G_t, trace one."""
    s, t = _normalise_rows(_at_least_float32(z_s)), _normalise_rows(_at_least_float32(z_t))
    g_s, g_t = product(s, s), product(t, t)
    # The traces are the numbers of rows that are not zero, and of pairs in which neither is.
    alive_s, alive_t = (z_s != 0).any(1), (z_t != 0).any(1)
    potential_s = _over_square(g_s.square().sum(), alive_s.sum())
    potential_st = _over_square((g_s * g_t).square().sum(), (alive_s & alive_t).sum())
    if log:
        return _log2_or_zero(potential_s) - _log2_or_zero(potential_st)
    return potential_s - potential_st


def terms(
    z_e: Tensor, z_t: Tensor, z_s: Tensor | None, alpha: float, beta_corr: float, beta_mi: float, log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted sum, correlation of z_e, Gram term of z_s or z_e); at least one weight > 0, NaN where a weight is 0."""
    nan = torch.full((), torch.nan, dtype=torch.promote_types(z_t.dtype, torch.float32), device=z_t.device)
    c = correlation(z_e, z_t, alpha) if beta_corr else nan
    g = gram(z_e if z_s is None else z_s, z_t, log) if beta_mi else nan
    if not beta_mi:
        return beta_corr * c, c, g
    if not beta_corr:
        return beta_mi * g, c, g
    return beta_corr * c + beta_mi * g, c, g


def _at_least_float32(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()


def _normalise_columns(z: Tensor) -> Tensor:
    """(z − μ)/σ per column, σ with n−1; a dead column (all entries equal to the first) gives zeros."""
    dead = (z == z[0]).all(0) & z[0].isfinite()
    z = _divide_by_largest(z, 0)
    centred = z - z.mean(0)
    sigma = (centred.square().sum(0) / (z.shape[0] - 1)).where(~dead, 1.0).sqrt()
    return (centred / sigma).where(~dead, 0.0)


def _normalise_rows(z: Tensor) -> Tensor:
    """z/‖z‖₂ per row; a zero row stays zero."""
    z = _divide_by_largest(z, 1)
    square = z.square().sum(1, keepdim=True)
    return z / square.where(square != 0, 1.0).sqrt()


def _divide_by_largest(z: Tensor, dim: int) -> Tensor:
    """Bring a row or column to order one, which its normalised form does not feel, so that squares stay in range."""
    largest = z.detach().abs().amax(dim, keepdim=True)
    return z / largest.where(largest != 0, 1.0)


def _over_square(total: Tensor, count: Tensor) -> Tensor:
    """total / count², and 0 where nothing was counted."""
    return total / count.clamp(min=1).to(total.dtype).square()


def _log2_or_zero(potential: Tensor) -> Tensor:
    return potential.where(potential != 0, 1.0).log2()
