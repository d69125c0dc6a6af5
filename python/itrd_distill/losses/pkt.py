"""Probabilistic knowledge transfer (Passalis and Tefas, 2018)."""

import torch
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Weight


def pkt(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Of features (n, d): mean of p_t log(p_t / p_s), p the rows of (1 + cosine) / 2."""
    p_s, p_t = _similarities(student, eps), _similarities(teacher, eps)
    return (p_t * ((p_t + eps) / (p_s + eps)).log()).mean()


def _similarities(z: Tensor, eps: float) -> Tensor:
    z = z / (torch.linalg.vector_norm(z, dim=1, keepdim=True) + eps)
    similarities = (z @ z.T + 1) / 2
    return similarities / similarities.sum(1, keepdim=True)


class PKTLoss(DistillationLoss):
    """weight · pkt(penultimate features)."""

    reads_maps = False

    def __init__(self, context: Context, weight: Weight = 30000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = pkt(student.features.penultimate, teacher.features.penultimate)
        return Terms.of("pkt", self.weight, distance)
