"""An early end when the loss is no longer a number, with the batch that did it."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor


def steps_between_looks(device: torch.device) -> int:
    """On an accelerator every look waits for the device, so they are rarer there."""
    return 1 if device.type == "cpu" else 20


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite."""


class StopOnNonFiniteLoss(L.Callback):
    """Ends the run, before the next checkpoint, and saves the first bad batch as nan_batch.pt in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._recent: list[tuple[int, Tensor, dict[str, Tensor]]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs, batch, batch_idx) -> None:
        self._recent.append((batch_idx, batch.index, outputs["terms"]))
        if len(self._recent) >= steps_between_looks(module.device):
            self._look(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        recent, self._recent = self._recent, []
        if not recent:
            return
        finite = torch.stack([terms["loss"] for _, _, terms in recent]).isfinite()
        if bool(finite.all()):
            return
        step, index, terms = recent[int((~finite).nonzero()[0])]
        epoch = trainer.current_epoch
        # The data set gives the same batch for the same keys, so it need not be kept until it is asked for.
        batches: Any = trainer.train_dataloader
        images, labels, index = batches.dataset.__getitems__([(epoch, i) for i in index.tolist()])
        path = self.directory / "nan_batch.pt"
        values = {name: value.item() for name, value in terms.items()}
        torch.save({"images": images, "labels": labels, "index": index, "epoch": epoch, "step": step, **values}, path)
        told = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise NonFiniteLoss(
            f"the loss is no longer finite in epoch {epoch + 1}, step {step} ({told}); its batch: {path}"
        )
