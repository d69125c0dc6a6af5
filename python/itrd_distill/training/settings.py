"""What a recipe says: everything that makes one run, overridable on the command line."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Annotated, Any

from torch import nn
from torch.optim import SGD

from itrd_distill.options import (
    Count,
    CountFromZero,
    Line,
    Positive,
    Rule,
    Weight,
    at_least,
    at_most,
    below,
    check_fields,
    is_a_line,
)

# Losses compare a sample with others, so they need two of them in a batch.
BatchSize = Annotated[int, at_least(2)]
Milestones = Annotated[list[Count], Rule("and later than the one before", lambda e: e == sorted(set(e)))]
# -1 stands for all there are.
Devices = Annotated[int, at_least(-1), at_most(1024)]
# What NumPy and Lightning take as a seed.
Seed = Annotated[int, at_least(0), at_most(2**32 - 1)]


def _stays_below(name: str) -> bool:
    path = PurePath(name)
    return is_a_line(name) and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


# An empty path would be the working directory.
PathName = Annotated[str, Rule("that is not empty", bool)]
# Names become folders of runs.
InFolders = Annotated[str, Rule("on one line that may name a folder, without ..", _stays_below)]


@dataclass
class TeacherSettings:
    """The frozen teacher.

    Args:
        model: name of the teacher's model; none for plain training.
        checkpoint: its weights: a weights.pt of this tool, or one of the CRD benchmark.
        cache: folder that keeps its outputs by view, for all runs of one seed; losses on maps run it all the same.
    """

    model: Line | None = None
    checkpoint: PathName | None = None
    cache: PathName | None = None

    def __post_init__(self) -> None:
        check_fields(self, "teacher.")
        if self.checkpoint is not None and self.model is None:
            raise ValueError(
                f"teacher.checkpoint is {self.checkpoint!r}, but teacher.model, whose weights these are, is not given"
            )


@dataclass
class LossSettings:
    """What is minimised.

    Args:
        name: distillation loss beside the cross-entropy, or "none"; needed where a teacher or options are given.
        cross_entropy_weight: weight of the cross-entropy.
        options: arguments of the distillation loss, such as {alpha: 1.5}.
    """

    name: Line | None = None
    cross_entropy_weight: Weight = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "loss.")


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

    name: Line = "digits"
    root: PathName = "data"
    download: bool = False
    batch_size: BatchSize = 64
    test_batch_size: Count = 1000
    workers: CountFromZero = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "data.")


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

    learning_rate: Positive = 0.05
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    weight_decay: Weight = 5e-4
    milestones: Milestones = field(default_factory=list)
    decay: Positive = 0.1

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")

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

    epochs: Count = 60
    accelerator: Line = "auto"
    devices: Devices | str = 1
    precision: Line = "32-true"
    channels_last: bool = False
    checkpoint_every: Count = 1

    def __post_init__(self) -> None:
        check_fields(self, "trainer.")

    def machine(self) -> dict[str, Any]:
        """The arguments of Lightning's Trainer about what it runs on, whose values Lightning alone knows."""
        return {name: getattr(self, name) for name in ("accelerator", "devices", "precision")}


@dataclass
class Recipe:
    """One run.

    Args:
        name: of the recipe; names the default folder of the run.
        student: name of the model to train.
        method: name of the method in tables; the loss's name if not given.
        seed: of initial weights, order of images and augmentation.
    """

    name: InFolders | None = None
    student: InFolders = "convnet_8_16"
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    method: InFolders | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        # Here, since they take seconds to import that `--help` should not.
        from itrd_distill.data import check_source
        from itrd_distill.losses import check_loss, loss_names
        from itrd_distill.models import check_model

        check_fields(self)
        name = self.loss.name
        if name is None:
            if given := ", ".join(self.distils_with()):
                raise ValueError(
                    f"{given} given without a loss: choose --loss.name, one of {', '.join(loss_names())}, "
                    "or none for cross-entropy alone"
                )
            name = "none"
            self.loss = replace(self.loss, name=name)
        if name != "none":
            check_loss(name, self.loss.options)
        elif self.loss.cross_entropy_weight == 0:
            raise ValueError("loss.cross_entropy_weight is 0 and loss.name is none: there is nothing to learn from")
        check_source(self.data.name, self.data.options)
        for setting, model in (("student: model", self.student), ("teacher.model", self.teacher.model)):
            if model is not None:
                check_model(setting, model)

    def try_out(self) -> None:
        """Raise a ValueError where Lightning or the backend asked for cannot run on this machine."""
        import lightning as L

        from itrd_distill.training.quiet import quieten_lightning
        from itrd_kernels.backends import why_not

        quieten_lightning()
        asked = self.trainer.machine()
        off: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        try:
            device = L.Trainer(**asked, **off).strategy.root_device.type
        except Exception as error:  # of many kinds, all about what is asked for
            settings = ", ".join(f"trainer.{name} {value!r}" for name, value in asked.items())
            raise ValueError(f"Lightning does not take {settings}: {error}") from error
        backend = self.loss.options.get("backend", "auto")
        if backend not in ("auto", "reference") and (reason := why_not(backend, device)):
            raise ValueError(f"loss.options.backend is {backend}, which cannot run on {device}: {reason}")

    def distils_with(self) -> list[str]:
        """The settings that say something and are of no use without a distillation loss."""
        teacher = [f"teacher.{name}" for name, value in asdict(self.teacher).items() if value is not None]
        return [*teacher, *(f"loss.options.{name}" for name in self.loss.options)]

    def folder(self) -> Path:
        """Where the run goes if nothing else is said."""
        loss = self.method or self.loss.name
        pair = f"{self.teacher.model}-{self.student}-{loss}" if self.teacher.model else self.student
        return Path("runs", self.name or f"{self.data.name}/{pair}", f"seed{self.seed}")
