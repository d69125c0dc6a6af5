"""Correlation congruence (Peng et al., 2019), of embeddings that are trained."""

from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Count, Weight


def cc(student: Tensor, teacher: Tensor) -> Tensor:
    """Of features (n, d): mean over i of Σ_j |Δ_ij| · |Δ_{i+1,j}|, Δ = student − teacher."""
    delta = (student - teacher).abs()
    return (delta[:-1] * delta[1:]).sum(1).mean()


class CCLoss(DistillationLoss):
    """weight · cc(embedded penultimate features), both embeddings trained."""

    reads_maps = False

    def __init__(self, context: Context, weight: Weight = 0.02, width: Count = 128) -> None:
        super().__init__()
        student, teacher = context.widths
        self.weight = weight
        self.embed_s, self.embed_t = nn.Linear(student, width), nn.Linear(teacher, width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = cc(self.embed_s(student.features.penultimate), self.embed_t(teacher.features.penultimate))
        return Terms.of("cc", self.weight, distance)
