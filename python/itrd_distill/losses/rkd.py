"""Losses that are a distance of the models' outputs as they are. Default weights are the CRD benchmark's."""

from itrd_distill.data.images import Batch
from itrd_distill.losses import distances
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms, paired_stages
from itrd_distill.options import Positive, Weight


class KDLoss(DistillationLoss):
    """weight · kd(logits). The benchmark's weight goes with 0.1 of cross-entropy."""

    reads_maps = False
    reads_logits = True

    def __init__(self, context: Context, weight: Weight = 0.9, temperature: Positive = 4.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("kd", self.weight, distances.kd(student.logits, teacher.logits, self.temperature))


class ATLoss(DistillationLoss):
    """weight · Σ over stages of at(maps)."""

    def __init__(self, context: Context, weight: Weight = 1000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("at", self.weight, sum(distances.at(s, t) for s, t in paired_stages(student, teacher)))


class NSTLoss(DistillationLoss):
    """weight · Σ over stages of nst(maps)."""

    def __init__(self, context: Context, weight: Weight = 50.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        return Terms.of("nst", self.weight, sum(distances.nst(s, t) for s, t in paired_stages(student, teacher)))


class SPLoss(DistillationLoss):
    """weight · sp(last maps)."""

    def __init__(self, context: Context, weight: Weight = 3000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = distances.sp(student.features.stages[-1], teacher.features.stages[-1])
        return Terms.of("sp", self.weight, distance)


class RKDLoss(DistillationLoss):
    """weight · rkd(penultimate features)."""

    reads_maps = False

    def __init__(
        self, context: Context, weight: Weight = 1.0, distance_weight: Weight = 25.0, angle_weight: Weight = 50.0
    ) -> None:
        super().__init__()
        self.weight, self.distance_weight, self.angle_weight = weight, distance_weight, angle_weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = distances.rkd(
            student.features.penultimate, teacher.features.penultimate, self.distance_weight, self.angle_weight
        )
        return Terms.of("rkd", self.weight, distance)


class PKTLoss(DistillationLoss):
    """weight · pkt(penultimate features)."""

    reads_maps = False

    def __init__(self, context: Context, weight: Weight = 30000.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = distances.pkt(student.features.penultimate, teacher.features.penultimate)
        return Terms.of("pkt", self.weight, distance)
