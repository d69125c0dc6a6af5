"""What the loss costs within a training step: ResNet-50 → ResNet-18 as on ImageNet, WRN-40-2 → WRN-16-2 as on CIFAR.

Synthetic images on the device, so that no loader is measured; the teacher runs in every step, so that contenders differ
by the loss alone. A row is a contender: milliseconds a step and images a second between events around several steps in
a row, and the loss's own time, forward and backward, between events around it. Cross-entropy alone runs first and last,
which shows how much the machine drifts.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.gpu import contenders
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.day import Case, Day, kept
from benchmarks.gpu.plan import FUSED
from itrd_kernels import itrd_loss

IMAGENET_WIDTHS, CIFAR_WIDTHS = (512, 2048), (128, 128)
WARM_UP, ROUNDS, SECONDS_OF_ROUND, OWN = 3, 5, 0.3, 7


class Setting(NamedTuple):
    """`teacher` and `student` map images to (logits, features)."""

    teacher: Callable
    student: Callable
    images: Tensor
    labels: Tensor
    widths: tuple[int, int]
    autocast: bool
    parameters: list[nn.Parameter]


def cases(day: Day) -> Iterator[Case]:
    names = ["cross-entropy alone", "plain", "compiled", *day.backends]
    for setting_name, make in (("ResNet-50 → ResNet-18", imagenet), ("WRN-40-2 → WRN-16-2", cifar)):
        yield Case(setting_name, lambda name=setting_name, make=make: train(day, name, make, [*names, names[0]]))


def train(day: Day, setting_name: str, make: Callable[[Day], Setting], names: list[str]) -> list[dict]:
    try:
        setting = make(day)
    except ImportError as error:
        return [{"setting": setting_name, "left_out": str(error)}]
    rows = []
    contenders.reset()
    for place, name in enumerate(names):
        if not day.part(f"{name} {place}"):
            continue
        row = {"setting": setting_name, "contender": name, "place": place, "batch": len(setting.labels)}
        rows.append(row)
        with kept(row):
            criterion = None if name == "cross-entropy alone" else _criterion(day, name, setting.widths)
            rounds, own = _steps(day, setting, criterion)
            if name in contenders.COMPILED:
                row["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            whole = statistics.median(rounds)
            row |= {"step_ms": whole * 1e3, "images_per_second": len(setting.labels) / whole}
            row["spread"] = (max(rounds) - min(rounds)) / whole
            if own is not None:
                row |= {"loss_ms": own * 1e3, "share": own / whole}
    return rows


def compile_losses(day: Day) -> None:
    """What torch.compile makes of both settings' losses, into the caches that the section shares with `compile`."""
    for batch, widths, autocast in ((256, IMAGENET_WIDTHS, True), (64, CIFAR_WIDTHS, False)):
        contenders.reset()
        z_s, z_t = (torch.randn(batch, width, device=day.device) for width in widths)
        with torch.autocast(day.device, torch.bfloat16, enabled=autocast):
            # Under autocast the features of both networks are in bfloat16.
            dtype = torch.bfloat16 if autocast else torch.float32
            loss = _criterion(day, "compiled", widths)(z_s.to(dtype).requires_grad_(), z_t.to(dtype))
        loss.backward()


def _criterion(day: Day, name: str, widths: tuple[int, int]) -> nn.Module:
    """An embedding, the same for every contender, and the loss of both terms on the embedded features."""
    d_s, d_t = widths
    if name in FUSED:
        loss = lambda z_e, z_t: itrd_loss(z_e, z_t, backend=name).total  # noqa: E731
    else:
        loss = contenders.loss(name, d_t, rehearse=day.rehearse)
    return _Embedded(nn.Linear(d_s, d_t).to(day.device), loss)


class _Embedded(nn.Module):
    def __init__(self, embed: nn.Module, loss: peers.Loss) -> None:
        super().__init__()
        self.embed, self.loss = embed, loss

    def forward(self, z_s: Tensor, z_t: Tensor) -> Tensor:
        return self.loss(self.embed(z_s), z_t)


def _steps(day: Day, setting: Setting, criterion: nn.Module | None) -> tuple[list[float], float | None]:
    """Seconds of a step in each of several rounds, and the median of the loss's within it."""
    parameters = [*setting.parameters, *(criterion.parameters() if criterion else ())]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    timer, own = Clock(day.device), []

    def distil(leaf: Tensor, z_t: Tensor) -> None:
        with torch.autocast(day.device, torch.bfloat16, enabled=setting.autocast):
            loss = criterion(leaf, z_t)
        loss.backward()

    def step(measure: bool = False) -> None:
        with torch.autocast(day.device, torch.bfloat16, enabled=setting.autocast):
            with torch.no_grad():
                _, z_t = setting.teacher(setting.images)
            logits, z_s = setting.student(setting.images)
            loss = F.cross_entropy(logits, setting.labels)
        outputs, upstream = [loss], [None]
        if criterion is not None:
            # Its gradient is formed apart, so that events can stand around it, and handed on to the student.
            leaf = z_s.detach().requires_grad_()
            if measure:
                own.append(timer.span(lambda: distil(leaf, z_t)))
            else:
                distil(leaf, z_t)
            outputs, upstream = [loss, z_s], [None, leaf.grad]
        torch.autograd.backward(outputs, upstream)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(1 if day.rehearse else WARM_UP):
        step()
    count = 1 if day.rehearse else max(1, round(SECONDS_OF_ROUND / timer.span(step)))
    rounds = [timer.span(lambda: [step() for _ in range(count)]) / count for _ in range(2 if day.rehearse else ROUNDS)]
    # Apart from the rounds, since these events wait for the device.
    for _ in range(0 if criterion is None else 1 if day.rehearse else OWN):
        step(measure=True)
    return rounds, statistics.median(own) if own else None


def imagenet(day: Day) -> Setting:
    from torchvision.models import resnet18, resnet50

    batch, size = (2, 32) if day.rehearse else (256, 224)
    teacher, student = _Pooled(resnet50()).to(day.device).eval(), _Pooled(resnet18()).to(day.device)
    models = [model.to(memory_format=torch.channels_last) for model in (teacher, student)]
    images = torch.randn(batch, 3, size, size, device=day.device).to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=day.device)
    return Setting(*models, images, labels, IMAGENET_WIDTHS, True, list(student.parameters()))


def cifar(day: Day) -> Setting:
    from itrd_distill.models.wide_resnet import WideResNet

    batch = 4 if day.rehearse else 64
    teacher, student = WideResNet(40, 2, 100).to(day.device).eval(), WideResNet(16, 2, 100).to(day.device)
    images, labels = torch.randn(batch, 3, 32, 32, device=day.device), torch.randint(100, (batch,), device=day.device)

    def with_features(model: nn.Module) -> Callable:
        def run(x: Tensor) -> tuple[Tensor, Tensor]:
            logits, features = model(x, return_features=True)
            return logits, features.penultimate

        return run

    return Setting(
        with_features(teacher), with_features(student), images, labels, CIFAR_WIDTHS, False, list(student.parameters())
    )


class _Pooled(nn.Module):
    """A torchvision ResNet that also returns its features after pooling."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head, model.fc = model.fc, nn.Identity()
        self.body = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.body(x)
        return self.head(z), z
