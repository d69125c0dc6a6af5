"""Distillation of the logits."""

from itrd_distill.data.images import Batch
from itrd_distill.losses import distances
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms


class KDLoss(DistillationLoss):
    """weight · kd(student logits, teacher logits). The benchmark's weight is 0.9, with 0.1 of cross-entropy."""

    def __init__(self, context: Context, weight: float = 0.9, temperature: float = 4.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = distances.kd(student.logits, teacher.logits, self.temperature)
        return Terms(self.weight * distance, {"kd": distance.detach()})
