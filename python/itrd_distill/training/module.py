"""The LightningModule: a student, a frozen teacher and a distillation loss."""

from collections.abc import Callable
from typing import cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from itrd_distill.data.images import Batch
from itrd_distill.losses import DistillationLoss, Outputs
from itrd_distill.models.binary import ChangesWithProgress
from itrd_distill.training.schedule import Schedule
from itrd_distill.training.settings import OptimizerSettings


class Distiller(L.LightningModule):
    """Minimises w · cross-entropy + the distillation loss; without teacher and loss it is plain training.

    Args:
        student: trained.
        teacher: frozen, in evaluation mode throughout; not part of the checkpoints.
        loss: its parameters (the embedding of ITRD) are trained with the student's.
        num_classes: number of logits.
        optimizer: settings of SGD and of the learning rate's course.
        cross_entropy_weight: w.

    teacher_outputs may be set to another function of the batch where its outputs need not be computed.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        loss: DistillationLoss | None,
        num_classes: int,
        optimizer: OptimizerSettings,
        cross_entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if (teacher is None) != (loss is None):
            raise ValueError("a distillation loss needs a teacher, and a teacher is of no use without one")
        self.student, self.loss = student, loss
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.optimizer_settings, self.cross_entropy_weight = optimizer, cross_entropy_weight
        self.teacher_outputs: Callable[[Batch], Outputs] = self._run_teacher
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: Batch, batch_index: int) -> dict:
        if self.loss is None:
            cross_entropy = F.cross_entropy(self.student(batch.images), batch.labels)
            total, parts = self.cross_entropy_weight * cross_entropy, {}
        else:
            student = Outputs(*self.student(batch.images, return_features=True))
            cross_entropy = F.cross_entropy(student.logits, batch.labels)
            distillation, parts = self.loss(student, self.teacher_outputs(batch), batch)
            total = self.cross_entropy_weight * cross_entropy + distillation
        # The callback History averages the terms over the epoch and logs them.
        return {"loss": total, "terms": {"loss": total.detach(), "cross_entropy": cross_entropy.detach(), **parts}}

    @torch.no_grad()
    def _run_teacher(self, batch: Batch) -> Outputs:
        teacher = cast(nn.Module, self.teacher)  # there is one wherever there is a loss
        return Outputs(*teacher(batch.images, return_features=True))

    def _epochs(self) -> int:
        # Lightning would train without an end where none is given; the settings always give one.
        return cast(int, self.trainer.max_epochs)

    def on_train_epoch_start(self) -> None:
        if isinstance(self.student, ChangesWithProgress):
            self.student.set_progress(self.current_epoch / self._epochs())
        if self.loss is not None:
            self.loss.epoch = self.current_epoch

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.accuracy(self.student(batch.images), batch.labels)
        self.log("test_accuracy", self.accuracy, on_step=False, on_epoch=True, prog_bar=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images)

    def configure_optimizers(self):
        settings = self.optimizer_settings
        optimizer = settings.create(self)
        return {"optimizer": optimizer, "lr_scheduler": Schedule(optimizer, settings, self._epochs())}

    def train(self, mode: bool = True) -> "Distiller":
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith("teacher.")}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Loading stays strict: the frozen teacher stands in for the weights that were not saved.
        own, saved = self.state_dict(), checkpoint["state_dict"]
        saved |= {name: own[name] for name in own if name.startswith("teacher.")}
        # What knows its settings has been compared by them; checkpoints of older versions and of others have not.
        strange = [n for n in {**own, **saved} if n not in own or n not in saved or own[n].shape != saved[n].shape]
        if strange:
            raise ValueError(
                f"the checkpoint is of another student or loss than this run's ({', '.join(strange[:3])}, …): "
                "choose those it was made with, or start anew"
            )
