"""ResNet-50 for 32×32 images: ImageNet's four groups of bottlenecks behind a 3×3 first convolution of stride 1."""

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal

EXPANSION = 4


class Bottleneck(nn.Module):
    """relu(x + 1×1 ∘ 3×3 ∘ 1×1 (x)), batch norm after each; the last convolution has EXPANSION · width channels."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        fan_out = EXPANSION * width
        self.conv1 = nn.Conv2d(fan_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, fan_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(fan_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + residual)


class ResNet50(nn.Module):
    """Groups of 3, 4, 6 and 3 bottlenecks."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _group(64, 64, 3, stride=1)
        self.layer2 = _group(256, 128, 4, stride=2)
        self.layer3 = _group(512, 256, 6, stride=2)
        self.layer4 = _group(1024, 512, 3, stride=2)
        self.linear = nn.Linear(2048, num_classes)
        he_normal(self)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            stages.append(group(stages[-1]))
        return classify(stages[-1], self.linear, stages, return_features)


def _group(fan_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(EXPANSION * width, width, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(fan_in, width, stride), *rest)
