"""ResNets with one-bit weights and activations, after ReCU (Xu et al., 2021).

The first convolution and the classifier keep full precision, as is usual.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.models.features import Features

TAU_FIRST, TAU_LAST = 0.85, 0.99
EPS = 1e-5


@runtime_checkable
class ChangesWithProgress(Protocol):
    """A model that is told at every epoch which share of the training is done."""

    def set_progress(self, share: float) -> None: ...


class SignOfWeights(torch.autograd.Function):
    """sign(w); the gradient passes as it is."""

    @staticmethod
    def forward(ctx, w: Tensor) -> Tensor:
        return torch.sign(w)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:
        return upstream


class SignOfActivations(torch.autograd.Function):
    """sign(a); the gradient is that of a piecewise quadratic, max(0, 2 − 2|â|), in â.

    â is a itself, or, `standardised`, a over its deviation in each sample: the sign does not see that, its gradient
    does. One function, since elementwise passes are what a one-bit network spends its time on.
    """

    @staticmethod
    def forward(ctx, a: Tensor, standardised: bool) -> Tensor:
        ctx.save_for_backward(a)
        ctx.standardised = standardised
        return torch.sign(a)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (a,) = ctx.saved_tensors
        if not ctx.standardised:
            return a.abs().mul_(-2).add_(2).clamp_(min=0).mul_(upstream), None
        per_sample, count = (1, 2, 3), a[0].numel()
        mean = a.mean(per_sample, keepdim=True)
        norm = torch.linalg.vector_norm(a, dim=per_sample, keepdim=True)
        # σ² = Σ (a − m)² / (M − 1) + ε
        deviation = ((norm.square() - count * mean.square()).clamp(min=0) / (count - 1) + EPS).sqrt()
        # g = max(0, 2 − 2|a| / σ) · upstream / σ
        gradient = (a.abs().mul_(-2 / deviation).add_(2)).clamp_(min=0).mul_(upstream).mul_(1 / deviation)
        # Through σ: g − (a − m) Σ g a / ((M − 1) σ²)
        share = (gradient * a).sum(per_sample, keepdim=True) / ((count - 1) * deviation.square())
        return gradient.sub_(a * share).add_(mean * share), None


class BinaryConv2d(nn.Conv2d):
    """scale · conv(sign(a), sign(w)), one trained scale for each channel out.

    Weights are standardised by channel (to deviation 2√2, as the authors do) and clamped at their quantiles τ and
    1 − τ, taking them for Laplacian: what lies beyond gets no gradient and so is revived.
    """

    def __init__(self, fan_in: int, fan_out: int, size: int, stride: int = 1) -> None:
        super().__init__(fan_in, fan_out, size, stride, padding=size // 2, bias=False)
        self.scale = nn.Parameter(torch.rand(fan_out, 1, 1))
        self.tau = TAU_FIRST

    def forward(self, a: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w * (2 * math.sqrt(2)) / torch.sqrt(w.var((1, 2, 3), keepdim=True) + EPS)
        # Quantile of a Laplacian of scale b = E|w|: −b ln(2 − 2τ)
        bound = -w.detach().abs().mean() * math.log(2 - 2 * self.tau)
        w = torch.minimum(torch.maximum(w, -bound), bound)
        signs = F.conv2d(
            SignOfActivations.apply(a, self.training), SignOfWeights.apply(w), None, self.stride, self.padding
        )
        return signs * self.scale


class SubsampleAndPad(nn.Module):
    """Every stride-th pixel, with zeros for the channels that are added on both sides."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (fan_out - fan_in) // 2
        self.after = fan_out - fan_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def binary_shortcut(fan_in: int, fan_out: int, stride: int) -> nn.Module:
    return nn.Sequential(BinaryConv2d(fan_in, fan_out, 1, stride), nn.BatchNorm2d(fan_out))


class BinaryBlock(nn.Module):
    """hardtanh(x + conv(hardtanh(conv(x)))), batch norm after each binary convolution.

    Args:
        fan_in, fan_out, stride: of the block.
        shortcut: makes x fit where the shape changes.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, shortcut: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv1 = BinaryConv2d(fan_in, fan_out, 3, stride)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = BinaryConv2d(fan_out, fan_out, 3)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = shortcut(fan_in, fan_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.shortcut(x)
        x = F.hardtanh(self.bn1(self.conv1(x)))
        return F.hardtanh(self.bn2(self.conv2(x)) + residual)


class BinaryResNet(nn.Module):
    """Groups of binary blocks; ReCU's ResNet-18 has four groups of two, its ResNet-20 three of three.

    Args:
        widths: channels of the groups; the first convolution has those of the first group.
        blocks: in each group.
        shortcut: makes a block's input fit where the shape changes.
        num_classes: number of logits.
    """

    def __init__(
        self, widths: Sequence[int], blocks: int, shortcut: Callable[..., nn.Module], num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        fans, strides = [widths[0], *widths[:-1]], [1, *[2] * (len(widths) - 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                BinaryBlock(fan_in, fan_out, stride, shortcut),
                *(BinaryBlock(fan_out, fan_out, 1, shortcut) for _ in range(blocks - 1)),
            )
            for fan_in, fan_out, stride in zip(fans, widths, strides, strict=True)
        )
        self.bn2 = nn.BatchNorm1d(widths[-1])
        self.linear = nn.Linear(widths[-1], num_classes)

    def set_progress(self, share: float) -> None:
        """τ from 0.85 to 0.99 along an exponential."""
        # τ = τ₀ + (τ₁ − τ₀) (e^share − 1) / (e − 1)
        tau = TAU_FIRST + (TAU_LAST - TAU_FIRST) * math.expm1(share) / math.expm1(1)
        for module in self.modules():
            if isinstance(module, BinaryConv2d):
                module.tau = tau

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Features]:
        stages = [self.bn1(self.conv1(x))]
        for layer in self.layers:
            stages.append(layer(stages[-1]))
        penultimate = self.bn2(stages[-1].mean(dim=(2, 3)))
        logits = self.linear(penultimate)
        return (logits, Features(tuple(stages), penultimate)) if return_features else logits
