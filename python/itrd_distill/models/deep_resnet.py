"""ImageNet's ResNets for 32×32 images: four groups of blocks behind a 3×3 first convolution of stride 1."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal


class Basic(nn.Module):
    """relu(x + 3×3 ∘ 3×3 (x)), batch norm after each."""

    expansion = 1

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(fan_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + residual)


class Bottleneck(nn.Module):
    """relu(x + 1×1 ∘ 3×3 ∘ 1×1 (x)), batch norm after each; the last convolution has 4 · width channels."""

    expansion = 4

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        fan_out = self.expansion * width
        self.conv1 = nn.Conv2d(fan_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, fan_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(fan_out)
        self.shortcut = _shortcut(fan_in, fan_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + residual)


class DeepResNet(nn.Module):
    """Groups of so many blocks each, of 64, 128, 256 and 512 channels, four times as many behind bottlenecks."""

    def __init__(self, block: type[Basic] | type[Bottleneck], blocks: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _group(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _group(block, 64 * block.expansion, 128, blocks[1], stride=2)
        self.layer3 = _group(block, 128 * block.expansion, 256, blocks[2], stride=2)
        self.layer4 = _group(block, 256 * block.expansion, 512, blocks[3], stride=2)
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        he_normal(self)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            stages.append(group(stages[-1]))
        return classify(stages[-1], self.linear, stages, return_features)


def _shortcut(fan_in: int, fan_out: int, stride: int) -> nn.Sequential:
    if stride == 1 and fan_in == fan_out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))


def _group(block: type[Basic] | type[Bottleneck], fan_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (block(block.expansion * width, width, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(block(fan_in, width, stride), *rest)
