"""Similarity-preserving distillation (Tung and Mori, 2019)."""

import torch.nn.functional as F
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Weight


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Of tensors (n, …): Σ (Ĝ_s − Ĝ_t)² / n², Ĝ the Gram matrix with rows of length one."""
    return _normalised_gram(student).sub(_normalised_gram(teacher)).square().mean()


def _normalised_gram(z: Tensor) -> Tensor:
    z = z.flatten(1)
    return F.normalize(z @ z.T)


class SPLoss(DistillationLoss):
    """weight · sp(last maps)."""

    def __init__(self, context: Context, weight: Weight = 3000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = sp(student.features.stages[-1], teacher.features.stages[-1])
        return Terms.of("sp", self.weight, distance)
