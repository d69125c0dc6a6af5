"""What every distillation loss takes and gives."""

from typing import NamedTuple

from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.models.features import Features


class Outputs(NamedTuple):
    """What a model says of a batch."""

    logits: Tensor
    features: Features


class Context(NamedTuple):
    """What a loss may need to know to build the parts it trains.

    student, teacher: outputs for a few samples, for their shapes.
    train_labels: (N,) label of every training image.
    """

    student: Outputs
    teacher: Outputs
    train_labels: Tensor


class Terms(NamedTuple):
    """total: the scalar to minimise; parts: its terms without their weights, detached, for the logs."""

    total: Tensor
    parts: dict[str, Tensor]


class DistillationLoss(nn.Module):
    """(student, teacher, batch) → Terms. Its parameters are trained with the student's."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        raise NotImplementedError
