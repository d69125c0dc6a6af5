"""Probabilistic knowledge transfer: Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge
Transfer", ECCV 2018."""

from collections.abc import Sequence

import torch
from torch import Tensor

from itrd_kernels.formulas.normalise import at_least_float32, normalise_rows
from itrd_kernels.formulas.pairs import Entries
from itrd_kernels.formulas.product import product


def pkt(z_s: Tensor, z_t: Tensor, eps: float) -> Tensor:
    """(1/n²) Σ_ij p_ij log((p_ij + ε)/(q_ij + ε)): the teacher's conditional probabilities p against the student's q.

    Each is (1 + cosine)/2 of two rows, divided by its sum over the row; a zero row has the cosine 0 with every row.
    """
    q, p = _probabilities(z_s), _probabilities(z_t)
    # log((p + ε)/(q + ε)) = log1p(δ), and Σ_j (p − q) = 0 may be taken off each row, whose size would hide the rest.
    delta = (p - q) / (q + eps)
    log = torch.log1p(delta)
    return ((q + eps) * ((1 + delta) * log - delta) - eps * log).mean()


def _probabilities(z: Tensor) -> Tensor:
    # A zero row, which has no direction, gets no gradient.
    unit = normalise_rows(at_least_float32(z)).where((z != 0).any(1, keepdim=True), 0.0)
    # A cosine may be below −1 by a rounding, and nothing is less probable than 0; its derivative is what it is.
    above = product(unit, unit) + 1
    similar = (above + (above.clamp(min=0) - above).detach()) / 2
    return similar / similar.sum(1, keepdim=True)


def pkt_entries(
    g: Tensor, h: Tensor, rows: Tensor, columns: Tensor, coefficients: Tensor, parameters: Sequence[float]
) -> Entries:
    """What entries g and h of the cosines add to the loss, from r = 1/(1 + mean cosine) of each row.

    With k rows that count, coefficients = (1/k³, kε), k q = r_s (1 + g) and k p = r_t (1 + h):
      δ = (p − q)/(q + ε),  λ = log1p δ,  kφ = k(q + ε)((1 + δ)λ − δ) − kελ,  u = ε/(q + ε) − δ,  x = λ − ε/(p + ε)
      L = 1/k³ Σ kφ,  W_s = (r_s,i u_ij + r_s,j u_ji)/(4k³),  row sums Σ_j u kq and Σ_j x kp
    """
    c, eps = coefficients
    own = _of_rows(g, h, rows[:, :, None], eps)
    other = _of_rows(g, h, columns[:, None, :], eps)
    counts = ((rows[0] != 0)[:, None] & (columns[0] != 0)).to(g.dtype)
    return Entries(
        c * counts * own[0],
        torch.zeros_like(g),
        c / 4 * counts * (rows[0][:, None] * own[1] + columns[0] * other[1]),
        c / 4 * counts * (rows[1][:, None] * own[2] + columns[1] * other[2]),
        counts * own[1] * rows[0][:, None] * (1 + g),
        counts * own[2] * rows[1][:, None] * (1 + h),
    )


def _of_rows(g: Tensor, h: Tensor, r: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(kφ, u, x) with the row statistics r (2, …)."""
    q, p = r[0] * (1 + g).clamp(min=0), r[1] * (1 + h).clamp(min=0)
    delta = (p - q) / (q + eps)
    log = torch.log1p(delta)
    return (q + eps) * ((1 + delta) * log - delta) - eps * log, eps / (q + eps) - delta, log - eps / (p + eps)
