"""Lightning's fit, which a signal may end."""

from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from itrd_distill.stopping import adopt, between_batches, look


class _Look(L.Callback):
    began = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.began = True

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx) -> None:
        look()

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx, dataloader_idx=0
    ) -> None:
        look()


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    batches: DataLoader,
    tests: DataLoader | None = None,
    *,
    checkpoint: Path | None = None,
) -> None:
    """`trainer.fit`, from a checkpoint on if one is given; a signal is looked for before every batch.

    Raises:
        ValueError: the checkpoint is not what Lightning, or this run, can take up again.
    """
    look_out = _Look()
    trainer.callbacks.append(look_out)  # type: ignore[attr-defined]  # the Trainer's own parts set it
    adopt(trainer)
    try:
        with between_batches():
            trainer.fit(module, batches, tests, ckpt_path=checkpoint, weights_only=True)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if checkpoint is None or look_out.began:
            raise
        told = error if isinstance(error, ValueError) else f"its content is not as a run writes it: {error!r}"
        raise ValueError(f"{checkpoint} cannot be gone on from: {told}") from error
