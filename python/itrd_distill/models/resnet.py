"""ResNets for 32×32 images: three groups of blocks (He et al., 2016, section 4.2), and wider ones.

Names, shapes and order of the parameters are those of the CRD benchmark (RepDistiller), as in all models beside this.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))), 3×3 with batch norm; where shapes differ, x goes through a 1×1 convolution."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.downsample = None
        if stride != 1 or fan_in != fan_out:
            self.downsample = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + residual)


class ResNet(nn.Module):
    """depth = 6k + 2 layers: k blocks in each of three groups.

    Args:
        depth: 8, 14, 20, 32, …
        widths: channels of the first convolution and of the three groups.
        num_classes: number of logits.
    """

    def __init__(self, depth: int, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest:
            raise ValueError(f"depth must be 6k + 2, got {depth}")
        stem, *groups = widths
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _group(stem, groups[0], blocks, stride=1)
        self.layer2 = _group(groups[0], groups[1], blocks, stride=2)
        self.layer3 = _group(groups[1], groups[2], blocks, stride=2)
        self.fc = nn.Linear(groups[2], num_classes)
        he_normal(self)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for group in (self.layer1, self.layer2, self.layer3):
            stages.append(group(stages[-1]))
        return classify(stages[-1], self.fc, stages, return_features)


def _group(fan_in: int, fan_out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Block(fan_in, fan_out, stride), *(Block(fan_out, fan_out, stride=1) for _ in range(blocks - 1))
    )
