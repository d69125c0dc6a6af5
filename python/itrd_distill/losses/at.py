"""Attention transfer (Zagoruyko and Komodakis, 2017)."""

import torch.nn.functional as F
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.maps import normalised_attention, over_stages, same_size
from itrd_distill.options import Weight


def at(student: Tensor, teacher: Tensor) -> Tensor:
    """Of maps (n, c, h, w): mean squared difference of normalised attention maps."""
    student, teacher = same_size(student, teacher)
    return F.mse_loss(normalised_attention(student), normalised_attention(teacher))


class ATLoss(DistillationLoss):
    """weight · Σ over stages of at(maps)."""

    def __init__(self, context: Context, weight: Weight = 1000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("at", self.weight, over_stages(at, student, teacher))
