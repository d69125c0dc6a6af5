"""Neuron selectivity transfer (Huang and Wang, 2017)."""

import torch.nn.functional as F
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.maps import over_stages, same_size
from itrd_distill.options import Weight


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Of maps (n, c, h, w): squared MMD of the channels under the kernel (a · b)²."""
    student, teacher = same_size(student, teacher)
    a_s, a_t = F.normalize(student.flatten(2), dim=2), F.normalize(teacher.flatten(2), dim=2)
    return _squared_kernel(a_t, a_t) + _squared_kernel(a_s, a_s) - 2 * _squared_kernel(a_s, a_t)


def _squared_kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).square().mean()


class NSTLoss(DistillationLoss):
    """weight · Σ over stages of nst(maps)."""

    def __init__(self, context: Context, weight: Weight = 50.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("nst", self.weight, over_stages(nst, student, teacher))
