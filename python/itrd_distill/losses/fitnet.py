"""Hints (Romero et al., 2015): a regressor brings the student's maps to the teacher's shape."""

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import CountFromZero, Weight


def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two tensors of one shape."""
    return F.mse_loss(student, teacher)


class FitNetLoss(DistillationLoss):
    """weight · fitnet(regressor(student's maps), teacher's maps) at one stage.

    Args:
        context: gives the shapes of the maps.
        weight: of the mean squared difference.
        stage: which feature map, counted from the first convolution's.
    """

    def __init__(self, context: Context, weight: Weight = 100.0, stage: CountFromZero = 2) -> None:
        super().__init__()
        available = min(len(context.student.features.stages), len(context.teacher.features.stages))
        if not 0 <= stage < available:
            raise ValueError(f"stage must lie between 0 and {available - 1} for these models, got {stage}")
        self.weight, self.stage = weight, stage
        student, teacher = context.student.features.stages[stage], context.teacher.features.stages[stage]
        self.regressor = nn.Sequential(_resize(student, teacher), nn.BatchNorm2d(teacher.shape[1]), nn.ReLU())

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        hint = self.regressor(student.features.stages[self.stage])
        return Terms.of("fitnet", self.weight, fitnet(hint, teacher.features.stages[self.stage]))


def _resize(student: Tensor, teacher: Tensor) -> nn.Module:
    """The benchmark's convolution from the student's maps to the size and channels of the teacher's."""
    (fan_in, s), (fan_out, t) = student.shape[1:3], teacher.shape[1:3]
    if s == 2 * t:
        return nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1)
    if 2 * s == t:
        return nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)
    if s >= t:
        return nn.Conv2d(fan_in, fan_out, 1 + s - t)
    raise ValueError(f"no regressor from the student's {s}×{s} maps to the teacher's {t}×{t}: choose another stage")
