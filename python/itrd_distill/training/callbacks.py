"""Callbacks: an epoch's randomness, its record, and its progress."""

import time
from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor

Row = dict[str, float]


class EpochSeed(L.Callback):
    """Seeds every epoch afresh, so that a resumed run draws what an unbroken one would have drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        torch.manual_seed(self.seed * 1_000_003 + trainer.current_epoch)


class History(L.Callback):
    """One row an epoch: epoch (from 0), test_accuracy, the means of loss and terms, images_per_second.

    The rows travel with the checkpoints, so a resumed run keeps those from before. They are logged as well.

    Args:
        report: called with every row once its epoch is over.
    """

    def __init__(self, report: Callable[[Row], None] | None = None) -> None:
        self.rows: list[Row] = []
        self.report = report

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._sums: dict[str, Tensor] = {}
        self._means: Row = {}
        self._images = 0
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs, batch, batch_idx) -> None:
        # Adding up here costs a tenth of what `log` in every step costs a small model.
        self._images += len(batch.labels)
        for name, value in outputs["terms"].items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._close(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close(trainer)
        module.log_dict(self._means)
        row = {"epoch": trainer.current_epoch, **self._means}
        if "test_accuracy" in trainer.callback_metrics:
            row["test_accuracy"] = trainer.callback_metrics["test_accuracy"].item()
        self.rows.append(row)
        if self.report is not None and trainer.is_global_zero:
            self.report(row)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = state_dict["rows"]

    def _close(self, trainer: L.Trainer) -> None:
        """The training part of the epoch is over; what evaluation costs does not count."""
        if self._means:
            return
        means = torch.stack(list(self._sums.values())) / trainer.num_training_batches
        means = trainer.strategy.reduce(means, reduce_op="mean")
        # Bringing the means to the host waits for the device, so the clock is read after it.
        self._means = dict(zip(self._sums, means.tolist(), strict=True))
        seconds = time.perf_counter() - self._start
        self._means["images_per_second"] = self._images * trainer.world_size / seconds
