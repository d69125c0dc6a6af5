"""Every model: its size, its features, a step of training, and the published networks' logits from published names."""

import itertools
import math
from typing import Any

import naive_models as naive
import numpy as np
import pytest
import torch
from torch import nn

from itrd_distill.models import create_model, model_names
from itrd_distill.models.binary import BinaryConv2d, SignOfActivations
from itrd_distill.training.files import load_model

# name: (parameters at 100 classes as the literature on this benchmark gives them, feature width, the network once more)
BENCHMARK = {
    "resnet8": (0.08, 64, naive.resnet),
    "resnet14": (0.18, 64, naive.resnet),
    "resnet20": (0.28, 64, naive.resnet),
    "resnet32": (0.47, 64, naive.resnet),
    "resnet56": (0.86, 64, naive.resnet),
    "resnet110": (1.74, 64, naive.resnet),
    "resnet8x4": (1.23, 256, naive.resnet),
    "resnet32x4": (7.43, 256, naive.resnet),
    "wrn_16_1": (0.18, 64, naive.wide_resnet),
    "wrn_16_2": (0.70, 128, naive.wide_resnet),
    "wrn_40_1": (0.57, 64, naive.wide_resnet),
    "wrn_40_2": (2.26, 128, naive.wide_resnet),
    "vgg8": (3.97, 512, naive.vgg),
    "vgg13": (9.46, 512, naive.vgg),
    "MobileNetV2": (0.81, 1280, naive.mobilenet),
    "ShuffleV1": (0.95, 960, naive.shuffle_v1),
    "ShuffleV2": (1.36, 1024, naive.shuffle_v2),
    "ResNet50": (23.71, 2048, naive.resnet50),
}
# The first and last parameters of a checkpoint, in its order.
ORDER = {
    "resnet20": ("conv1.weight bn1.weight bn1.bias layer1.0.conv1.weight", "layer3.2.bn2.bias fc.weight fc.bias"),
    "resnet8x4": (
        "conv1.weight bn1.weight bn1.bias layer1.0.conv1.weight",
        "layer3.0.downsample.1.bias fc.weight fc.bias",
    ),
    "wrn_16_2": ("conv1.weight block1.layer.0.bn1.weight block1.layer.0.bn1.bias", "bn1.bias fc.weight fc.bias"),
    "vgg8": ("block0.0.weight block0.0.bias block0.1.weight", "block4.1.bias classifier.weight classifier.bias"),
    "MobileNetV2": (
        "conv1.0.weight conv1.1.weight conv1.1.bias blocks.0.0.conv.0.weight",
        "conv2.1.bias classifier.0.weight classifier.0.bias",
    ),
    "ShuffleV1": (
        "conv1.weight bn1.weight bn1.bias layer1.0.conv1.weight",
        "layer3.3.bn3.bias linear.weight linear.bias",
    ),
    "ShuffleV2": ("conv1.weight bn1.weight bn1.bias layer1.0.conv1.weight", "bn2.bias linear.weight linear.bias"),
    "ResNet50": (
        "conv1.weight bn1.weight bn1.bias layer1.0.conv1.weight",
        "layer4.2.bn3.bias linear.weight linear.bias",
    ),
}


def images_for(name, n=2):
    channels, size = (1, 8) if name.startswith("convnet") else (3, 64) if name.startswith("imagenet") else (3, 32)
    return torch.randn(n, channels, size, size)


def unusual(model):
    """Give every parameter and statistic a value that tells it from the others."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def test_all_models_of_the_paper_are_there():
    assert BENCHMARK.keys() <= set(model_names())


@pytest.mark.parametrize("name", BENCHMARK)
def test_logits_are_those_of_the_benchmark(name, tmp_path):
    _, _, network = BENCHMARK[name]
    state = unusual(create_model(name, 7)).state_dict()
    torch.save({"epoch": 240, "model": state}, tmp_path / "teacher.pth")
    model = load_model(tmp_path / "teacher.pth", name, 7).double().eval()
    x = images_for(name).double()
    with torch.no_grad():
        expected = network(naive.Net({key: value.double() for key, value in state.items()}), x)
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", model_names())
def test_features_feed_the_logits(name):
    model = create_model(name).eval()
    x = images_for(name)
    logits, features = model(x, return_features=True)
    torch.testing.assert_close(model(x), logits)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(head(features.penultimate), logits)
    assert all(stage.dim() == 4 for stage in features.stages)
    if name in BENCHMARK:
        millions, width, _ = BENCHMARK[name]
        assert features.penultimate.shape == (2, width)
        assert len(features.stages) >= 4
        assert millions_of(model) == millions
    features.stages[0].sum().backward(retain_graph=True)
    model.train()
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def millions_of(model):
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 2)


# Classes, parameters in millions, feature width: the first three as published, one-bit students counted by hand:
# a convolution's weights and its scales, and two for each channel of a batch norm.
OTHERS = {
    "ResNet18": (10, 11.17, 512),
    "imagenet_resnet18": (1000, 11.69, 512),
    "imagenet_resnet34": (1000, 21.80, 512),
    "resnet18_1bit": (10, 11.18, 512),
    "resnet18A_1bit": (10, 0.74, 128),
    "resnet20_1bit": (10, 0.27, 64),
    "resnet8_1bit": (10, 0.08, 64),
}


def test_every_model_is_counted():
    assert {*BENCHMARK, *OTHERS, "convnet_8_16", "convnet_32_64"} == set(model_names())


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_have_the_size_of_their_originals(name):
    classes, millions, width = OTHERS[name]
    model = create_model(name, classes).eval()
    assert millions_of(model) == millions
    assert model(images_for(name), return_features=True)[1].penultimate.shape == (2, width)


@pytest.mark.parametrize("name", ORDER)
def test_parameters_stand_in_the_order_of_the_benchmark(name):
    names = [key for key, _ in create_model(name).named_parameters()]
    first, last = (text.split() for text in ORDER[name])
    assert names[: len(first)] == first
    assert names[-len(last) :] == last


def test_bare_state_dict_loads(tmp_path):
    model = create_model("resnet8", 10)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    loaded = load_model(tmp_path / "bare.pth", "resnet8", 10)
    torch.testing.assert_close(loaded.fc.weight, model.fc.weight, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "width"), [("timm/resnet18", 512), ("timm/vit_tiny_patch16_224", 192)])
def test_any_model_of_timm(name, width):
    pytest.importorskip("timm")
    model = create_model(name, 10).eval()
    x = torch.randn(2, 3, 224, 224)
    logits, features = model(x, return_features=True)
    torch.testing.assert_close(model(x), logits)
    assert features.penultimate.shape == (2, width)
    assert all(stage.dim() == 4 for stage in features.stages)


@pytest.mark.parametrize(
    ("name", "message"), [("resnet7", "model must be one of"), ("timm/no_such", "timm has no model")]
)
def test_unknown_models_are_named(name, message):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        create_model(name)


def naive_binary_conv(a, weight, scale, stride):
    """Signs convolved and scaled, by NumPy."""
    weight = weight - weight.mean((1, 2, 3), keepdims=True)
    signs, kernel, k = np.sign(a), np.sign(weight), weight.shape[2]
    signs = np.pad(signs, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    size = (a.shape[2] + 2 * (k // 2) - k) // stride + 1
    out = np.empty((len(a), len(weight), size, size))
    for i, j in itertools.product(range(size), range(size)):
        window = signs[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
        out[:, :, i, j] = np.einsum("nckl,fckl->nf", window, kernel)
    return out * scale


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_binary_convolution_multiplies_signs(size, stride):
    torch.manual_seed(0)
    layer = BinaryConv2d(4, 6, size, stride).double()
    a = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    weight, scale = (p.detach().numpy() for p in (layer.weight, layer.scale))
    expected = naive_binary_conv(a.numpy(), weight, scale, stride)
    for training in (True, False):
        np.testing.assert_allclose(layer.train(training)(a).detach().numpy(), expected, rtol=1e-12)


def test_binary_gradients_are_the_authors():
    layer = BinaryConv2d(2, 3, 1).double().eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [4.0, -0.1], [-3.0, 0.2]])[:, :, None, None])
        layer.scale.fill_(0.5)
    a = torch.tensor([0.25, -1.5, 0.9, -0.5], dtype=torch.float64).view(1, 2, 2, 1).requires_grad_()
    layer(a).sum().backward()
    # Weights' signs after centring: (+, −), (+, −), (−, +).
    upstream = 0.5 * torch.tensor([1 + 1 - 1, -1 - 1 + 1], dtype=torch.float64).view(1, 2, 1, 1)
    torch.testing.assert_close(a.grad, upstream * (2 - 2 * a.detach().abs()).clamp(min=0))


def test_the_gradient_of_standardised_signs_passes_through_the_deviation():
    """Against autograd of the same in single steps, with sign replaced by the quadratic whose slope it takes."""
    torch.manual_seed(0)
    a = 2 * torch.randn(3, 4, 5, 5, dtype=torch.float64) + 0.3
    upstream = torch.randn_like(a)
    expected, found = (a.clone().requires_grad_() for _ in range(2))
    scaled = expected / torch.sqrt(expected.var((1, 2, 3), keepdim=True) + 1e-5)
    inside = scaled.clamp(-1, 1)
    (2 * inside - inside * inside.abs()).backward(upstream)
    signs = SignOfActivations.apply(found, True)
    signs.backward(upstream)
    torch.testing.assert_close(signs, torch.sign(a))
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("tau", "passes"), [(0.85, False), (0.9999, True)])
def test_weights_beyond_the_quantile_get_no_gradient(tau, passes, monkeypatch):
    """The gradient that reaches the clamp's input, with the standardisation taken out of the way."""
    layer = BinaryConv2d(50, 1, 1).double().eval()
    layer.tau = tau
    torch.manual_seed(0)
    w = torch.randn(1, 50, 1, 1, dtype=torch.float64)
    w[0, 0] = 8.0
    with torch.no_grad():
        layer.weight.copy_(w)
    gradients = {}
    maximum = torch.maximum

    def watched(w, low):
        w.register_hook(lambda gradient: gradients.update(w=gradient))
        return maximum(w, low)

    monkeypatch.setattr(torch, "maximum", watched)
    layer(torch.randn(1, 50, 1, 1, dtype=torch.float64)).sum().backward()
    assert (gradients["w"][0, 0].item() != 0) is passes
    assert (gradients["w"][0, 1:] != 0).float().mean() > 0.7


def test_progress_moves_tau_along_an_exponential():
    model: Any = create_model("resnet18A_1bit", 10)
    for share, tau in ((0.0, 0.85), (1.0, 0.99), (0.5, 0.85 + 0.14 * (math.e**0.5 - 1) / (math.e - 1))):
        model.set_progress(share)
        (found,) = {module.tau for module in model.modules() if isinstance(module, BinaryConv2d)}
        assert found == pytest.approx(tau)


def test_a_binary_network_learns():
    torch.manual_seed(0)
    model, labels = create_model("resnet18A_1bit", 4), torch.arange(16) % 4
    # Four patterns under noise.
    x = torch.randn(4, 3, 16, 16)[labels] + 0.3 * torch.randn(16, 3, 16, 16)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# Two convolutions in each block; three shortcuts of ResNet-18.
@pytest.mark.parametrize(("name", "convolutions"), [("resnet18A_1bit", 8 * 2 + 3), ("resnet20_1bit", 9 * 2)])
def test_binary_weights_and_activations_are_one_bit(name, convolutions):
    model = create_model(name, 10).eval()
    seen = []
    convolve = torch.nn.functional.conv2d

    def watch(a, w, *rest):
        seen.append((set(a.unique().tolist()), set(w.unique().tolist())))
        return convolve(a, w, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "conv2d", watch)
        model(images_for(name))
    binary = [pair for pair in seen if pair[1] <= {-1.0, 1.0}]
    assert len(binary) == convolutions
    # All but the first convolution of the network.
    assert len(seen) == convolutions + 1
    assert all(a <= {-1.0, 0.0, 1.0} for a, _ in binary)
