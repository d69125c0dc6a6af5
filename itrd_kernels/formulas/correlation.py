"""The correlation loss, Eq. 6."""

from torch import Tensor

from itrd_kernels.formulas.normalise import at_least_float32, normalise_columns


def correlation(z_s: Tensor, z_t: Tensor, alpha: float) -> Tensor:
    """Eq. 6: log2 Σ_j |v_j − 1|^(2α), v = diagonal of the cross-correlation of z_s and z_t, both (n, d)."""
    n = z_s.shape[0]
    # v_j = 1/n Σ_i ŝ_ij t̂_ij
    v = (normalise_columns(at_least_float32(z_s)) * normalise_columns(at_least_float32(z_t))).sum(0) / n
    # log2 Σ|e|^(2α) = 2α log2 max|e| + log2 Σ(|e|/max|e|)^(2α), since (1/256)^20 underflows float32
    e = (v - 1).abs()
    largest = e.detach().amax()
    return 2 * alpha * largest.log2() + (e / largest).pow(2 * alpha).sum().log2()
