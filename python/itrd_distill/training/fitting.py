"""Lightning's fit, which a signal may end."""

import lightning as L

from itrd_distill.stopping import adopt, between_batches, look


class _Look(L.Callback):
    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx) -> None:
        look()

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx, dataloader_idx=0
    ) -> None:
        look()


def fit(trainer: L.Trainer, *arguments, **options) -> None:
    """`trainer.fit`; a signal is looked for before every batch."""
    trainer.callbacks.append(_Look())
    adopt(trainer)
    with between_batches():
        trainer.fit(*arguments, **options)
