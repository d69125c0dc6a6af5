"""Every model: its size, its features, a step of training, and the published networks' logits from published names."""

import naive_models as naive
import pytest
import torch
from torch import nn

from itrd_distill.models import create_model, model_names
from itrd_distill.training.files import load_model

# name: (parameters at 100 classes as the literature on this benchmark gives them, feature width, the network once more)
BENCHMARK = {
    "resnet8": (None, 64, naive.resnet),
    "resnet14": (None, 64, naive.resnet),
    "resnet20": (0.28, 64, naive.resnet),
    "resnet32": (0.47, 64, naive.resnet),
    "resnet56": (0.86, 64, naive.resnet),
    "resnet110": (1.74, 64, naive.resnet),
    "resnet8x4": (1.23, 256, naive.resnet),
    "resnet32x4": (7.43, 256, naive.resnet),
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
        if millions is not None:
            assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions
    features.stages[0].sum().backward(retain_graph=True)
    model.train()
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


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
