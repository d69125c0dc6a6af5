"""Both terms and their weighted sum, Eq. 10 without the cross-entropy."""

import torch
from torch import Tensor

from itrd_kernels.formulas.correlation import correlation
from itrd_kernels.formulas.mutual_information import mutual_information


def terms(
    z_e: Tensor, z_t: Tensor, z_s: Tensor | None, alpha: float, beta_corr: float, beta_mi: float, log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted sum, L_corr of z_e, L_mi of z_s or z_e); at least one weight > 0, NaN where a weight is 0."""
    nan = torch.full((), torch.nan, dtype=torch.promote_types(z_t.dtype, torch.float32), device=z_t.device)
    l_corr = correlation(z_e, z_t, alpha) if beta_corr else nan
    l_mi = mutual_information(z_e if z_s is None else z_s, z_t, log) if beta_mi else nan
    if not beta_mi:
        return beta_corr * l_corr, l_corr, l_mi
    if not beta_corr:
        return beta_mi * l_mi, l_corr, l_mi
    return beta_corr * l_corr + beta_mi * l_mi, l_corr, l_mi
