"""What a recipe says: everything that makes one run, overridable on the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import SGD


@dataclass
class TeacherSettings:
    """The frozen teacher.

    Args:
        model: name of the teacher's model; none for plain training.
        checkpoint: its weights: a weights.pt of this tool, or one of the CRD benchmark.
        cache: folder that keeps its outputs by view, for all runs of one seed; losses on maps run it all the same.
    """

    model: str | None = None
    checkpoint: str | None = None
    cache: str | None = None


@dataclass
class LossSettings:
    """What is minimised.

    Args:
        name: distillation loss beside the cross-entropy, or "none".
        cross_entropy_weight: weight of the cross-entropy.
        options: arguments of the distillation loss, such as {alpha: 1.5}.
    """

    name: str = "none"
    cross_entropy_weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataSettings:
    """The images.

    Args:
        name: data set.
        root: folder of its files.
        download: fetch what is not there.
        batch_size: training images a step, on each process.
        test_batch_size: test images a step.
        workers: processes that load images; 0 loads in the training process.
        options: arguments of the data set.
    """

    name: str = "digits"
    root: str = "data"
    download: bool = False
    batch_size: int = 64
    test_batch_size: int = 1000
    workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerSettings:
    """SGD and the course of its learning rate.

    Args:
        learning_rate: of SGD, at the start.
        momentum: of SGD.
        weight_decay: of SGD, on every trained parameter.
        milestones: epochs after which the learning rate is multiplied by `decay`; empty for a cosine to zero.
        decay: factor at each milestone.
    """

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: list[int] = field(default_factory=list)
    decay: float = 0.1

    def create(self, module: nn.Module) -> SGD:
        """SGD on everything in `module` that is trained."""
        trained = [p for p in module.parameters() if p.requires_grad]
        return SGD(trained, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass
class TrainerSettings:
    """Lightning's Trainer.

    Args:
        epochs: passes over the training images.
        accelerator, devices, precision: as Lightning's Trainer takes them.
        channels_last: keep maps as (n, h, w, c) in memory, which convolutions often want; the same numbers but for
            rounding.
        checkpoint_every: epochs between checkpoints.
    """

    epochs: int = 60
    accelerator: str = "auto"
    devices: int | str = 1
    precision: str = "32-true"
    channels_last: bool = False
    checkpoint_every: int = 1


@dataclass
class Recipe:
    """One run.

    Args:
        name: of the recipe; names the default folder of the run.
        student: name of the model to train.
        method: name of the method in tables; the loss's name if not given.
        seed: of initial weights, order of images and augmentation.
    """

    name: str | None = None
    student: str = "convnet_8_16"
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    method: str | None = None
    seed: int = 0

    def folder(self) -> Path:
        """Where the run goes if nothing else is said."""
        loss = self.method or self.loss.name
        pair = f"{self.teacher.model}-{self.student}-{loss}" if self.teacher.model else self.student
        return Path("runs", self.name or f"{self.data.name}/{pair}", f"seed{self.seed}")
