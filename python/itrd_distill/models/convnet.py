"""A plain convolutional network for small grey images, such as the 8×8 digits of scikit-learn."""

from collections.abc import Sequence

from torch import Tensor, nn

from itrd_distill.models.features import Features, classify


class ConvNet(nn.Module):
    """Blocks of 3×3 convolution, batch norm, ReLU, all but the last followed by 2×2 max pooling; then a linear layer.

    Args:
        widths: channels of each block.
        num_classes: number of logits.
        in_channels: channels of the images.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU())
            for fan_in, fan_out in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.halve = nn.MaxPool2d(2)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = []
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else self.halve(x))
            stages.append(x)
        return classify(x, self.fc, stages, return_features)
