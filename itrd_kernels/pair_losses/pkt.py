"""PKT in one sweep: what a row is divided by is linear in the rows, and what that adds to the gradient has rank one.

With k rows, unit rows ẑ and their sum a = Σ_j ẑ_j, the row sums of (1 + cosine)/2 are (k + ẑ_i·a)/2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from itrd_kernels.formulas.pkt import pkt
from itrd_kernels.pair_losses.base import PairLoss, Result


class _UnitRows(NamedTuple):
    """ẑ = inverse · x of one side, kept apart so that ẑ need not be stored."""

    x: Tensor  # (n, d): rows of order one
    inverse: Tensor  # (n,): 1/‖x‖, 0 for a zero row
    scale: Tensor  # (n,): x = scale · z
    total: Tensor  # (d,): a
    along: Tensor  # (n,): ẑ_i·a

    @classmethod
    def of(cls, z: Tensor) -> "_UnitRows":
        # Norms of float32 features cannot leave the range of float64.
        size = z.abs().amax(1) if z.dtype == torch.float64 else torch.linalg.vector_norm(z, dim=1, dtype=torch.float64)
        exponent = size.frexp().exponent.clamp(*((-1020, 1020) if z.dtype == torch.float64 else (-125, 125)))
        scale = torch.exp2(-exponent.to(torch.promote_types(z.dtype, torch.float32)))
        x = z * scale[:, None]
        norm = torch.linalg.vector_norm(x, dim=1)
        inverse = norm.where(norm != 0, float("inf")).reciprocal()
        total = x.T @ inverse
        return cls(x, inverse, scale, total, inverse * (x @ total))

    def statistic(self) -> Tensor:
        """r = 1/(1 + mean cosine) of each row."""
        return (1 + self.along / len(self.x)).reciprocal()

    def repaired(self, dgram: Tensor, kappa: Tensor) -> Tensor:
        """dgram − the gradient of Σ_i κ_i ẑ_i·a: P_i(κ_i a + Σ_j κ_j ẑ_j)/‖z_i‖ with P_i g = g − (g·ẑ_i)ẑ_i."""
        if dgram.numel() == 0:
            return dgram
        weighted = self.x.T @ (kappa * self.inverse)
        per_norm = self.inverse * self.scale
        along = kappa * self.along + self.inverse * (self.x @ weighted)
        dgram = dgram.addmm(torch.stack([kappa * per_norm, per_norm], 1), torch.stack([self.total, weighted]), alpha=-1)
        return dgram.addcmul(self.x, (along * self.inverse * per_norm)[:, None])


def _evaluate(sweep, z_s: Tensor, z_t: Tensor, eps: float) -> Result:
    k = len(z_s)
    s, t = _UnitRows.of(z_s), _UnitRows.of(z_t)
    statistics = torch.stack([s.statistic(), t.statistic()])
    sums, dgram_s, dgram_t, row_sums = sweep("pkt", (1 / k**3, k * eps), statistics=statistics)
    if row_sums.numel() == 0:
        return Result(sums[0], dgram_s, dgram_t)
    # κ = r Σ_j u kq / k⁴
    kappa = statistics * row_sums / k**4
    return Result(sums[0], s.repaired(dgram_s, kappa[0]), t.repaired(dgram_t, kappa[1]))


PKT = PairLoss("pkt", pkt, _evaluate)
