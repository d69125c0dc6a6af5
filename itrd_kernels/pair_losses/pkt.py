"""PKT in one sweep: what a row is divided by is linear in the rows, and what that adds to the gradient has rank one.

With k rows, unit rows ẑ and their sum a = Σ_j ẑ_j, the row sums of (1 + cosine)/2 are (k + ẑ_i·a)/2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from itrd_kernels.formulas.pkt import pkt
from itrd_kernels.pair_losses.base import PairLoss, Result


class UnitRows(NamedTuple):
    """The rows of one side, and what they add up to; all of them wide.

    Attributes:
        unit: (n, d): ẑ, zero for a zero row.
        per_norm: (n,): 1/‖z‖, 0 for a zero row.
        total: (d,): a = Σ_j ẑ_j.
        along: (n,): ẑ_i·a.
    """

    unit: Tensor
    per_norm: Tensor
    total: Tensor
    along: Tensor

    @classmethod
    def of(cls, z: Tensor) -> "UnitRows":
        wide = torch.promote_types(z.dtype, torch.float32)
        # The norm of float32 features cannot leave the range of float64; those of float64 need a size to be taken off.
        size = z.abs().amax(1) if wide == torch.float64 else torch.linalg.vector_norm(z, dim=1, dtype=torch.float64)
        limit = 1020 if wide == torch.float64 else 125
        scale = torch.exp2(-size.log2().floor().clamp(-limit, limit))
        x = z * scale.to(wide)[:, None]
        norm = torch.linalg.vector_norm(x, dim=1) if wide == torch.float64 else size * scale
        inverse = norm.reciprocal().where(norm != 0, 0.0)
        unit = x.mul_(inverse.to(wide)[:, None])
        total = unit.sum(0)
        per_norm = (inverse * scale).clamp(max=torch.finfo(wide).max).to(wide)
        return cls(unit, per_norm, total, unit @ total)

    def statistic(self) -> Tensor:
        """r = 1/(1 + mean cosine) of each row."""
        return (1 + self.along / len(self.unit)).reciprocal()

    def repaired(self, dgram: Tensor, kappa: Tensor) -> Tensor:
        """dgram − P_i(κ_i a + Σ_j κ_j ẑ_j)/‖z_i‖ with P_i g = g − (g·ẑ_i)ẑ_i: the gradient of −Σ_i κ_i ẑ_i·a."""
        if dgram.numel() == 0:
            return dgram
        weighted = self.unit.T @ kappa
        along = (kappa * self.along + self.unit @ weighted) * self.per_norm
        dgram.addr_(kappa * self.per_norm, self.total, alpha=-1).addr_(self.per_norm, weighted, alpha=-1)
        return dgram.addcmul_(self.unit, along[:, None])


def _evaluate(sweep, z_s: Tensor, z_t: Tensor, eps: float) -> Result:
    k = len(z_s)
    parameters = (1 / k**3, k * eps)
    if sweep.forms_statistics:
        sums, dgram_s, dgram_t, _ = sweep("pkt", parameters)
        return Result(sums[0], dgram_s, dgram_t)
    s, t = UnitRows.of(z_s), UnitRows.of(z_t)
    statistics = torch.stack([s.statistic(), t.statistic()])
    sums, dgram_s, dgram_t, row_sums = sweep("pkt", parameters, statistics=statistics)
    if row_sums.numel() == 0:
        return Result(sums[0], dgram_s, dgram_t)
    # κ = r Σ_j u kq / k⁴
    kappa = statistics * row_sums / k**4
    return Result(sums[0], s.repaired(dgram_s, kappa[0]), t.repaired(dgram_t, kappa[1]))


PKT = PairLoss("pkt", pkt, _evaluate)
