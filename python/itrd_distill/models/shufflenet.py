"""ShuffleNet V1 (Zhang et al., 2018; 3 groups) and V2 (Ma et al., 2018; full width) for 32×32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify

STEM = 24


class BlockV1(nn.Module):
    """Grouped 1×1, shuffle, 3×3 depthwise, grouped 1×1; added to x, or at stride 2 put beside its average pooling."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, groups: int) -> None:
        super().__init__()
        width = fan_out // 4
        # The first convolution after the stem is not grouped: its channels are too few.
        self.stride, self.groups = stride, 1 if fan_in == STEM else groups
        self.conv1 = nn.Conv2d(fan_in, width, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, fan_out, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        out = F.channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 2:
            return F.relu(torch.cat([out, F.avg_pool2d(x, 3, 2, padding=1)], 1))
        return F.relu(out + x)


class ShuffleV1(nn.Module):
    """Groups of 4, 8 and 4 blocks with 240, 480 and 960 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _group_v1(STEM, 240, 4)
        self.layer2 = _group_v1(240, 480, 8)
        self.layer3 = _group_v1(480, 960, 4)
        self.linear = nn.Linear(960, num_classes)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for group in (self.layer1, self.layer2, self.layer3):
            stages.append(group(stages[-1]))
        return classify(stages[-1], self.linear, stages, return_features)


def _group_v1(fan_in: int, fan_out: int, blocks: int, groups: int = 3) -> nn.Sequential:
    # The first block's convolutions give what its pooled input, put beside them, lacks of fan_out channels.
    first = BlockV1(fan_in, fan_out - fan_in, 2, groups)
    return nn.Sequential(first, *(BlockV1(fan_out, fan_out, 1, groups) for _ in range(blocks - 1)))


class BlockV2(nn.Module):
    """1×1, 3×3 depthwise, 1×1 on half of the channels, shuffled with the untouched half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.conv1 = nn.Conv2d(self.width, self.width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.width)
        self.conv2 = nn.Conv2d(self.width, self.width, 3, padding=1, groups=self.width, bias=False)
        self.bn2 = nn.BatchNorm2d(self.width)
        self.conv3 = nn.Conv2d(self.width, self.width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.width)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x[:, self.width :])))
        out = F.relu(self.bn3(self.conv3(self.bn2(self.conv2(out)))))
        return F.channel_shuffle(torch.cat([x[:, : self.width], out], 1), 2)


class DownV2(nn.Module):
    """Two branches of stride 2, each giving half of the channels, shuffled."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        half = fan_out // 2
        self.conv1 = nn.Conv2d(fan_in, fan_in, 3, 2, padding=1, groups=fan_in, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_in)
        self.conv2 = nn.Conv2d(fan_in, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(fan_in, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return F.channel_shuffle(torch.cat([left, right], 1), 2)


class ShuffleV2(nn.Module):
    """A halving block and 3, 7 and 3 blocks with 116, 232 and 464 channels; a 1×1 convolution to 1024."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = nn.Sequential(DownV2(STEM, 116), *(BlockV2(116) for _ in range(3)))
        self.layer2 = nn.Sequential(DownV2(116, 232), *(BlockV2(232) for _ in range(7)))
        self.layer3 = nn.Sequential(DownV2(232, 464), *(BlockV2(464) for _ in range(3)))
        self.conv2 = nn.Conv2d(464, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for group in (self.layer1, self.layer2, self.layer3):
            stages.append(group(stages[-1]))
        last = F.relu(self.bn2(self.conv2(stages[-1])))
        return classify(last, self.linear, stages, return_features)
