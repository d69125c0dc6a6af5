"""Knowledge review (Chen et al., 2021): the student's stages, fused from the last to the first, learn the teacher's."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import CountFromZero, Weight

MOST_CHANNELS = 512


class Fusion(nn.Module):
    """Attention-based fusion of a stage with what comes back from the stages after it.

    Args:
        fan_in: channels of the student's stage.
        width: channels in which stages are fused.
        fan_out: channels of the teacher's stage.
        fuse: False for the last stage, to which nothing comes back.
    """

    def __init__(self, fan_in: int, width: int, fan_out: int, fuse: bool) -> None:
        super().__init__()
        enter = nn.Conv2d(fan_in, width, 1, bias=False)
        leave = nn.Conv2d(width, fan_out, 3, padding=1, bias=False)
        self.enter = nn.Sequential(enter, nn.BatchNorm2d(width))
        self.leave = nn.Sequential(leave, nn.BatchNorm2d(fan_out))
        self.attention = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuse else None
        for convolution in (enter, leave):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, stage: Tensor, back: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """(what is compared with the teacher, at the teacher's size; what goes back to the stage before)"""
        fused = self.enter(stage)
        if self.attention is not None and back is not None:
            back = F.interpolate(back, fused.shape[2:], mode="nearest")
            share = self.attention(torch.cat([fused, back], 1))
            fused = fused * share[:, :1] + back * share[:, 1:]
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.leave(fused), fused


class ReviewKDLoss(DistillationLoss):
    """weight · ramp · Σ over stages of the pyramid distance of fused student maps and teacher maps.

    Stages are those after the first convolution and, as a last one, the penultimate features as 1×1 maps. The ramp
    rises from 0 to 1 in the first epochs, as in the authors' code; the maps here are those after the ReLU.

    Args:
        context: gives the shapes.
        weight: of the distance; the authors take 0.6 to 8, by pair.
        ramp_epochs: epochs until the weight is full.
    """

    def __init__(self, context: Context, weight: Weight = 5.0, ramp_epochs: CountFromZero = 20) -> None:
        super().__init__()
        student, teacher = _stages(context.student), _stages(context.teacher)
        if len(student) != len(teacher):
            raise ValueError(
                f"ReviewKD needs models with as many stages, got {len(student)} (student) and {len(teacher)} (teacher)"
            )
        self.weight, self.ramp_epochs = weight, ramp_epochs
        width = min(MOST_CHANNELS, student[-1].shape[1])
        last = len(student) - 1
        self.fusions = nn.ModuleList(
            Fusion(s.shape[1], width, t.shape[1], fuse=i < last)
            for i, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        back: Tensor | None = None
        distances = []
        for fusion, stage, target in zip(
            reversed(self.fusions), reversed(_stages(student)), reversed(_stages(teacher)), strict=True
        ):
            compared, back = fusion(stage, back, target.shape[2:])
            distances.append(pyramid_distance(compared, target))
        distance = reduce(torch.add, distances)
        ramp = min(1.0, self.epoch / self.ramp_epochs) if self.ramp_epochs else 1.0
        return Terms(self.weight * ramp * distance, {"review": distance.detach()})


def pyramid_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of maps (n, c, h, w), averaged over sizes h, 4, 2, 1 with weights 1, ½, ¼, …"""
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size >= student.shape[2]:
            continue
        weight /= 2
        weights += weight
        pooled_s, pooled_t = (F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher))
        total = total + weight * F.mse_loss(pooled_s, pooled_t)
    return total / weights


def _stages(outputs: Outputs) -> list[Tensor]:
    return [*outputs.features.stages[1:], outputs.features.penultimate[:, :, None, None]]
