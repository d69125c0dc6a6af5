"""Factor transfer (Kim et al., 2018): a paraphraser of the teacher's maps and a translator of the student's."""

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.maps import normalised_attention, same_size
from itrd_distill.options import CountFromZero, Positive, Weight


def ft(student: Tensor, teacher: Tensor) -> Tensor:
    """Of factors (n, c, h, w): mean absolute difference of normalised attention maps."""
    student, teacher = same_size(student, teacher)
    return F.l1_loss(normalised_attention(student), normalised_attention(teacher))


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
        return Terms.of("ft", self.weight, ft(self.translator(student.features.stages[-1]), factors_t))

    def prepared(self) -> list[nn.Module]:
        return [self.encoder, self.decoder]

    def preparation(self, teacher: Outputs) -> Tensor:
        # Mean squared error of the reconstruction.
        maps = teacher.features.stages[-1]
        return F.mse_loss(self.decoder(self.encoder(maps)), maps)


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
