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

    @property
    def widths(self) -> tuple[int, int]:
        """Widths d_s, d_t of the penultimate features."""
        return self.student.features.penultimate.shape[1], self.teacher.features.penultimate.shape[1]


class Terms(NamedTuple):
    """total: the scalar to minimise; parts: its terms without their weights, detached, for the logs."""

    total: Tensor
    parts: dict[str, Tensor]

    @classmethod
    def of(cls, name: str, weight: float, term: Tensor) -> "Terms":
        return cls(weight * term, {name: term.detach()})


class DistillationLoss(nn.Module):
    """(student, teacher, batch) → Terms. Its trainable parameters are trained with the student's.

    reads_maps: whether the teacher's feature maps are looked at; logits and penultimate features may come from a cache.
    reads_logits: whether the teacher's logits are compared with the student's, for which both need the same classes.
    epoch: the current one, from 0, set by the training.
    preparation_epochs: passes over the training images in which `preparation` is minimised before the student's
        training starts; 0 for the losses that need none.
    """

    reads_maps = True
    reads_logits = False
    epoch = 0
    preparation_epochs = 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        raise NotImplementedError

    def prepared(self) -> list[nn.Module]:
        """The parts that the preparation trains; they are frozen before and after."""
        return []

    def preparation(self, teacher: Outputs) -> Tensor:
        """What the preparation minimises, from the teacher's outputs alone."""
        raise NotImplementedError
