"""MobileNetV2 (Sandler et al., 2018) as the CRD benchmark has it: early strides of 1, an expansion in every block."""

from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal, small_linear

# Expansion, channels at full width, blocks, stride of the first block.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Groups after which the benchmark reads a feature map.
_STAGES = (1, 2, 4, 6)
LAST_WIDTH = 1280


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection without ReLU; plus x where the shape stays."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = fan_in * expansion
        self.residual = stride == 1 and fan_in == fan_out
        self.conv = nn.Sequential(
            *_convolution(fan_in, width, 1),
            *_convolution(width, width, 3, stride, groups=width),
            nn.Conv2d(width, fan_out, 1, bias=False),
            nn.BatchNorm2d(fan_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """All widths but the last convolution's are multiplied by `width`."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        fan_in = int(32 * width)
        self.conv1 = nn.Sequential(*_convolution(3, fan_in, 3, stride=2))
        self.blocks = nn.ModuleList()
        for expansion, channels, blocks, stride in _GROUPS:
            fan_out = int(channels * width)
            group = [InvertedResidual(fan_in, fan_out, stride, expansion)]
            group += [InvertedResidual(fan_out, fan_out, 1, expansion) for _ in range(blocks - 1)]
            self.blocks.append(nn.Sequential(*group))
            fan_in = fan_out
        self.conv2 = nn.Sequential(*_convolution(fan_in, LAST_WIDTH, 1))
        linear = nn.Linear(LAST_WIDTH, num_classes)
        self.classifier = nn.Sequential(linear)
        he_normal(self)
        small_linear(linear)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        x = self.conv1(x)
        stages = [x]
        for i, group in enumerate(self.blocks):
            x = group(x)
            if i in _STAGES:
                stages.append(x)
        return classify(self.conv2(x), self.classifier, stages, return_features)


def _convolution(fan_in: int, fan_out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(fan_out), nn.ReLU()]
