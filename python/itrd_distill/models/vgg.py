"""VGG with batch norm for 32×32 images (Simonyan and Zisserman, 2015), one linear layer in place of three."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features, classify
from itrd_distill.models.initialise import he_normal, small_linear


class VGG(nn.Module):
    """Five blocks of 3×3 convolutions with batch norm and ReLU; max pooling halves the maps after the first three.

    Args:
        blocks: channels of each convolution, block by block.
        num_classes: number of logits.
    """

    def __init__(self, blocks: Sequence[Sequence[int]], num_classes: int) -> None:
        super().__init__()
        fan_in = 3
        for i, widths in enumerate(blocks):
            layers: list[nn.Module] = []
            for width in widths:
                layers += [nn.Conv2d(fan_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                fan_in = width
            # The last ReLU stands outside its block, which numbers the parameters as the benchmark does.
            setattr(self, f"block{i}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(fan_in, num_classes)
        he_normal(self)
        small_linear(self.classifier)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        # STL-10 and TinyImageNet at 64×64 are halved once more.
        halvings = 4 if x.shape[2] == 64 else 3
        stages = []
        for i in range(5):
            block: nn.Module = getattr(self, f"block{i}")
            stages.append(F.relu(block(x)))
            x = F.max_pool2d(stages[-1], 2) if i < halvings else stages[-1]
        return classify(stages[-1], self.classifier, stages, return_features)
