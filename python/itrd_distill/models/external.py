"""Models of other libraries with this package's interface: torchvision's ResNets and whatever timm holds."""

import importlib

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TorchvisionResNet

from itrd_distill.models.features import Features, classify


class ImageNetResNet(TorchvisionResNet):
    """torchvision's ResNet for 224×224 images; its published weights load unchanged."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(stages[0])
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = group(x)
            stages.append(x)
        return classify(x, self.fc, stages, return_features)


def imagenet_resnet18(num_classes: int) -> nn.Module:
    return ImageNetResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)


def imagenet_resnet34(num_classes: int) -> nn.Module:
    return ImageNetResNet(BasicBlock, [3, 4, 6, 3], num_classes=num_classes)


class TimmModel(nn.Module):
    """A model of timm, held as `model`; its stages are those of timm's `forward_intermediates`, as (n, c, h, w)."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        try:
            timm = importlib.import_module("timm")
        except ImportError as error:
            raise ValueError(f"model timm/{name} needs timm: pip install timm") from error
        if name not in timm.list_models():
            raise ValueError(f"timm has no model {name!r}; timm.list_models() lists those it has")
        self.model = timm.create_model(name, num_classes=num_classes)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        if not return_features:
            return self.model(x)
        if hasattr(self.model, "forward_intermediates"):
            last, stages = self.model.forward_intermediates(x)
        else:
            last = self.model.forward_features(x)
            stages = [last] if last.dim() == 4 else []
        penultimate = self.model.forward_head(last, pre_logits=True)
        return self.model.get_classifier()(penultimate), Features(tuple(stages), torch.flatten(penultimate, 1))
