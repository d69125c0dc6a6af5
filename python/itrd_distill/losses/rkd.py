"""Relational knowledge distillation (Park et al., 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Weight


def rkd(student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Of features (n, …): Huber losses of all distances (mean 1) and of all cosines of angles."""
    student, teacher = student.flatten(1), teacher.flatten(1)
    distance = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distance + angle_weight * angle


def _relative_distances(z: Tensor) -> Tensor:
    # ‖z_i − z_j‖ / mean over i ≠ j
    n = len(z)
    squared = z.square().sum(1)
    distances = (squared[:, None] + squared - 2 * z @ z.T).clamp(min=1e-12).sqrt()
    distances = distances.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), 0)
    return distances / (distances.sum() / (n * (n - 1)))


def _angles(z: Tensor) -> Tensor:
    # cos ∠(z_j, z_i, z_k) for all i, j, k
    directions = F.normalize(z - z[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


class RKDLoss(DistillationLoss):
    """weight · rkd(penultimate features)."""

    reads_maps = False

    def __init__(
        self, context: Context, weight: Weight = 1.0, distance_weight: Weight = 25.0, angle_weight: Weight = 50.0
    ) -> None:
        super().__init__()
        self.weight, self.distance_weight, self.angle_weight = weight, distance_weight, angle_weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = rkd(
            student.features.penultimate, teacher.features.penultimate, self.distance_weight, self.angle_weight
        )
        return Terms.of("rkd", self.weight, distance)
