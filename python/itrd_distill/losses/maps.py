"""What losses on feature maps share."""

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from itrd_distill.losses.base import Outputs


def paired_stages(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """The feature maps after the first convolution, in pairs; where one model has more, its first are left out."""
    own, other = student.features.stages[1:], teacher.features.stages[1:]
    count = min(len(own), len(other))
    return list(zip(own[len(own) - count :], other[len(other) - count :], strict=True))


def over_stages(distance: Callable[[Tensor, Tensor], Tensor], student: Outputs, teacher: Outputs) -> Tensor:
    """The sum of a distance of maps over the models' paired stages."""
    return reduce(torch.add, (distance(s, t) for s, t in paired_stages(student, teacher)))


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger maps to the size of the smaller."""
    if student.shape[2] > teacher.shape[2]:
        return _pool(student, teacher), teacher
    if student.shape[2] < teacher.shape[2]:
        return student, _pool(teacher, student)
    return student, teacher


def _pool(maps: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[2:]
    return F.adaptive_avg_pool2d(maps, (height, width))


def normalised_attention(maps: Tensor) -> Tensor:
    """Attention (n, h·w) of maps (n, c, h, w): the mean over channels of maps², brought to length one."""
    return F.normalize(maps.square().mean(1).flatten(1))
