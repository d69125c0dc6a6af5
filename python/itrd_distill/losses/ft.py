"""Losses that bring student and teacher into one space by layers that are trained. Weights: the CRD benchmark's."""

from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses import distances
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Count, CountFromZero, Positive, Weight


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
        return Terms.of("fitnet", self.weight, distances.fitnet(hint, teacher.features.stages[self.stage]))


class CCLoss(DistillationLoss):
    """weight · cc(embedded penultimate features), both embeddings trained."""

    reads_maps = False

    def __init__(self, context: Context, weight: Weight = 0.02, width: Count = 128) -> None:
        super().__init__()
        student, teacher = context.widths
        self.weight = weight
        self.embed_s, self.embed_t = nn.Linear(student, width), nn.Linear(teacher, width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        distance = distances.cc(self.embed_s(student.features.penultimate), self.embed_t(teacher.features.penultimate))
        return Terms.of("cc", self.weight, distance)


class FTLoss(DistillationLoss):
    """weight · ft(translator(student's last maps), paraphraser(teacher's last maps)).

    The paraphraser, an autoencoder of the teacher's maps, is trained beforehand and then frozen.

    Args:
        context: gives the shapes of the maps.
        weight: of the mean absolute difference.
        rate: the factors' channels are so many times the teacher's.
        preparation_epochs: passes over the training images for the paraphraser.
    """

    def __init__(
        self, context: Context, weight: Weight = 200.0, rate: Positive = 0.5, preparation_epochs: CountFromZero = 30
    ) -> None:
        super().__init__()
        student, teacher = context.student.features.stages[-1].shape[1], context.teacher.features.stages[-1].shape[1]
        factors = max(1, int(teacher * rate))
        self.weight, self.preparation_epochs = weight, preparation_epochs
        self.translator = _encoder(student, factors, nn.BatchNorm2d)
        self.encoder = _encoder(teacher, factors)
        self.decoder = nn.Sequential(
            *_layer(nn.ConvTranspose2d, factors, factors),
            *_layer(nn.ConvTranspose2d, factors, teacher),
            *_layer(nn.ConvTranspose2d, teacher, teacher),
        )
        for part in self.prepared():
            part.requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        factors_t = self.encoder(teacher.features.stages[-1])
        return Terms.of("ft", self.weight, distances.ft(self.translator(student.features.stages[-1]), factors_t))

    def prepared(self) -> list[nn.Module]:
        return [self.encoder, self.decoder]

    def preparation(self, teacher: Outputs) -> Tensor:
        # Mean squared error of the reconstruction.
        maps = teacher.features.stages[-1]
        return nn.functional.mse_loss(self.decoder(self.encoder(maps)), maps)


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


def _encoder(fan_in: int, factors: int, norm: type[nn.Module] | None = None) -> nn.Sequential:
    return nn.Sequential(
        *_layer(nn.Conv2d, fan_in, fan_in, norm),
        *_layer(nn.Conv2d, fan_in, factors, norm),
        *_layer(nn.Conv2d, factors, factors, norm),
    )


def _layer(
    convolution: type[nn.Module], fan_in: int, fan_out: int, norm: type[nn.Module] | None = None
) -> list[nn.Module]:
    return [convolution(fan_in, fan_out, 3, 1, 1), *([norm(fan_out)] if norm else []), nn.LeakyReLU(0.1)]
