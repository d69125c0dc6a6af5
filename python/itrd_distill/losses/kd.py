"""Distillation of logits (Hinton et al., 2015)."""

import torch.nn.functional as F
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Positive, Weight


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """Of logits (n, classes): T² · KL(teacher ‖ student) of softmax(logits / T), mean over n."""
    # KL(p_t ‖ p_s) = (1/n) Σ_i Σ_c p_t (log p_t − log p_s)
    log_p_s = F.log_softmax(student_logits / temperature, dim=1)
    log_p_t = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True) * temperature**2


class KDLoss(DistillationLoss):
    """weight · kd(logits). The benchmark's weight goes with 0.1 of cross-entropy."""

    reads_maps = False
    reads_logits = True

    def __init__(self, context: Context, weight: Weight = 0.9, temperature: Positive = 4.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("kd", self.weight, kd(student.logits, teacher.logits, self.temperature))
