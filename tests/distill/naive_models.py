"""The CRD benchmark's networks once more, as plain functions of the published parameter names.

What a checkpoint with these names must compute in evaluation mode, written without modules: a model that loads it and
gives other logits differs from the benchmark.
"""

import torch
import torch.nn.functional as F


class Net:
    """Layers looked up in a state_dict by name."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, stride=1, groups=1):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[2] // 2, groups=groups)

    def bn(self, x, name):
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def linear(self, x, name):
        return x.mean((2, 3)) @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def has(self, name):
        return any(key.startswith(f"{name}.") for key in self.state)

    def count(self, prefix):
        return len({key[len(prefix) + 1 :].split(".")[0] for key in self.state if key.startswith(f"{prefix}.")})


def shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def resnet(net, x):
    x = F.relu(net.bn(net.conv(x, "conv1"), "bn1"))
    for group in (1, 2, 3):
        for i in range(net.count(f"layer{group}")):
            block, stride = f"layer{group}.{i}", 2 if group > 1 and i == 0 else 1
            out = F.relu(net.bn(net.conv(x, f"{block}.conv1", stride), f"{block}.bn1"))
            out = net.bn(net.conv(out, f"{block}.conv2"), f"{block}.bn2")
            if net.has(f"{block}.downsample"):
                x = net.bn(net.conv(x, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            x = F.relu(out + x)
    return net.linear(x, "fc")


def resnet50(net, x):
    x = F.relu(net.bn(net.conv(x, "conv1"), "bn1"))
    for group in (1, 2, 3, 4):
        for i in range(net.count(f"layer{group}")):
            block, stride = f"layer{group}.{i}", 2 if group > 1 and i == 0 else 1
            out = F.relu(net.bn(net.conv(x, f"{block}.conv1"), f"{block}.bn1"))
            out = F.relu(net.bn(net.conv(out, f"{block}.conv2", stride), f"{block}.bn2"))
            out = net.bn(net.conv(out, f"{block}.conv3"), f"{block}.bn3")
            if net.has(f"{block}.shortcut"):
                x = net.bn(net.conv(x, f"{block}.shortcut.0", stride), f"{block}.shortcut.1")
            x = F.relu(out + x)
    return net.linear(x, "linear")


def wide_resnet(net, x):
    x = net.conv(x, "conv1")
    for group in (1, 2, 3):
        for i in range(net.count(f"block{group}.layer")):
            block, stride = f"block{group}.layer.{i}", 2 if group > 1 and i == 0 else 1
            active = F.relu(net.bn(x, f"{block}.bn1"))
            if net.has(f"{block}.convShortcut"):
                x = net.conv(active, f"{block}.convShortcut", stride)
            out = F.relu(net.bn(net.conv(active, f"{block}.conv1", stride), f"{block}.bn2"))
            x = x + net.conv(out, f"{block}.conv2")
    return net.linear(F.relu(net.bn(x, "bn1")), "fc")


def vgg(net, x):
    for block in range(5):
        for layer in range(0, 6, 3):
            if net.has(f"block{block}.{layer}"):
                x = F.relu(net.bn(net.conv(x, f"block{block}.{layer}"), f"block{block}.{layer + 1}"))
        if block < 3:
            x = F.max_pool2d(x, 2)
    return net.linear(x, "classifier")


def mobilenet(net, x):
    x = F.relu(net.bn(net.conv(x, "conv1.0", 2), "conv1.1"))
    for group, stride in enumerate((1, 1, 2, 2, 1, 2, 1)):
        for i in range(net.count(f"blocks.{group}")):
            block = f"blocks.{group}.{i}.conv"
            out = F.relu(net.bn(net.conv(x, f"{block}.0"), f"{block}.1"))
            out = net.conv(out, f"{block}.3", stride if i == 0 else 1, groups=out.shape[1])
            out = net.bn(net.conv(F.relu(net.bn(out, f"{block}.4")), f"{block}.6"), f"{block}.7")
            x = out + x if out.shape == x.shape else out
    x = F.relu(net.bn(net.conv(x, "conv2.0"), "conv2.1"))
    return net.linear(x, "classifier.0")


def shuffle_v1(net, x):
    x = F.relu(net.bn(net.conv(x, "conv1"), "bn1"))
    for group in (1, 2, 3):
        for i in range(net.count(f"layer{group}")):
            block, stride = f"layer{group}.{i}", 2 if i == 0 else 1
            groups = 1 if x.shape[1] == 24 else 3
            out = shuffle(F.relu(net.bn(net.conv(x, f"{block}.conv1", groups=groups), f"{block}.bn1")), groups)
            out = F.relu(net.bn(net.conv(out, f"{block}.conv2", stride, groups=out.shape[1]), f"{block}.bn2"))
            out = net.bn(net.conv(out, f"{block}.conv3", groups=3), f"{block}.bn3")
            x = F.relu(torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1) if i == 0 else out + x)
    return net.linear(x, "linear")


def shuffle_v2(net, x):
    x = F.relu(net.bn(net.conv(x, "conv1"), "bn1"))
    for group in (1, 2, 3):
        for i in range(net.count(f"layer{group}")):
            block = f"layer{group}.{i}"
            if i == 0:
                left = net.bn(net.conv(x, f"{block}.conv1", 2, groups=x.shape[1]), f"{block}.bn1")
                left = F.relu(net.bn(net.conv(left, f"{block}.conv2"), f"{block}.bn2"))
                out = F.relu(net.bn(net.conv(x, f"{block}.conv3"), f"{block}.bn3"))
                out = net.bn(net.conv(out, f"{block}.conv4", 2, groups=out.shape[1]), f"{block}.bn4")
                out = F.relu(net.bn(net.conv(out, f"{block}.conv5"), f"{block}.bn5"))
            else:
                left, out = x.chunk(2, 1)
                out = F.relu(net.bn(net.conv(out, f"{block}.conv1"), f"{block}.bn1"))
                out = net.bn(net.conv(out, f"{block}.conv2", groups=out.shape[1]), f"{block}.bn2")
                out = F.relu(net.bn(net.conv(out, f"{block}.conv3"), f"{block}.bn3"))
            x = shuffle(torch.cat([left, out], 1), 2)
    return net.linear(F.relu(net.bn(net.conv(x, "conv2"), "bn2")), "linear")
