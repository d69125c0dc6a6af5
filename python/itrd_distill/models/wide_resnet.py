"""Wide residual networks (Zagoruyko and Komodakis, 2016): blocks with batch norm and ReLU before each convolution."""

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal


class Block(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))); where widths differ, the shortcut is a 1×1 convolution of relu(bn(x))."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(fan_in)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.convShortcut = None if fan_in == fan_out else nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        residual = x if self.convShortcut is None else self.convShortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + residual


class Group(nn.Module):
    """Blocks in a row."""

    def __init__(self, fan_in: int, fan_out: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = (Block(fan_out, fan_out, stride=1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(Block(fan_in, fan_out, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """depth = 6k + 4 layers: k blocks in each of three groups of 16, 32 and 64 times `widen` channels."""

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest:
            raise ValueError(f"depth must be 6k + 4, got {depth}")
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = Group(16, widths[0], blocks, stride=1)
        self.block2 = Group(widths[0], widths[1], blocks, stride=2)
        self.block3 = Group(widths[1], widths[2], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [self.conv1(x)]
        for group in (self.block1, self.block2, self.block3):
            stages.append(group(stages[-1]))
        return classify(F.relu(self.bn1(stages[-1])), self.fc, stages, return_features)
