"""L_mi on a polynomial of the cosines (section 4.2 of the paper): the sweeps of the operator `gram` that it takes."""

import math

import torch
from torch import Tensor

from itrd_kernels.formulas.mutual_information import mutual_information
from itrd_kernels.pair_losses.base import PairLoss, Result


def _evaluate(sweep, z_s: Tensor, z_t: Tensor, c: float, p: float) -> Result:
    sums, dgram_s, dgram_t, _ = sweep("polynomial", (c, p))
    return Result(sums[0], dgram_s, dgram_t)


def _evaluate_log(sweep, z_s: Tensor, z_t: Tensor, c: float, p: float) -> Result:
    # With the coefficients 1 and 0 the sums are Σ G_s² and Σ (G_s ∘ G_t)²; those of the gradients follow from them.
    wide = torch.promote_types(z_t.dtype, torch.float32)
    one_and_zero = torch.arange(1, -1, -1, dtype=wide, device=z_t.device)
    sums = sweep("polynomial", (c, p), coefficients=one_and_zero, gradients=False).sums
    potentials, counts = sums[:2], sums[2:]
    traces = torch.stack([counts[0] * (1 + c) ** p, counts[1] * (1 + c) ** (2 * p)])
    logs = (potentials / traces.where(traces != 0, 1.0).square()).where(potentials != 0, 1.0).log2()
    # ∂ log2 x = ∂x / (x ln 2)
    coefficients = (math.log(2) * potentials).where(potentials != 0, math.inf).reciprocal()
    _, dgram_s, dgram_t, _ = sweep("polynomial", (c, p), coefficients=coefficients.to(wide))
    return Result(logs[0] - logs[1], dgram_s, dgram_t)


def _formula(z_s: Tensor, z_t: Tensor, c: float, p: float) -> Tensor:
    return mutual_information(z_s, z_t, False, (c, int(p)))


def _formula_log(z_s: Tensor, z_t: Tensor, c: float, p: float) -> Tensor:
    return mutual_information(z_s, z_t, True, (c, int(p)))


POLYNOMIAL = PairLoss("polynomial", _formula, _evaluate)
POLYNOMIAL_LOG = PairLoss("polynomial, log", _formula_log, _evaluate_log)
