"""The frozen teacher's outputs on disk, by view, for every run that shows it the same views."""

from pathlib import Path
from typing import cast

import lightning as L
import torch
from torch import Tensor, nn

from itrd_distill.data import Batch, ImageData, loader
from itrd_distill.data.images import EpochSampler
from itrd_distill.losses import Outputs
from itrd_distill.models import Features
from itrd_distill.stopping import looking
from itrd_distill.training.kept import kept, make_folder
from itrd_distill.training.matching import widths
from itrd_distill.training.provenance import fingerprint
from itrd_distill.training.settings import Recipe

_REMEDY = "name another folder by --teacher.cache"


class TeacherCache(L.Callback):
    """Logits and penultimate features of all training images, one file for the views of each epoch.

    What an image looks like is a function of seed, epoch and image alone, so every method and student that trains with
    one seed shows the teacher the same views; images that are not augmented look the same always and take one file.
    An epoch whose file is missing, damaged or another's is computed before it begins, in the precision of the run.

    Args:
        folder: that holds the caches of all teachers and data sets, each in a folder named by a digest of both.
        teacher: frozen.
        data: its training images are those that are cached.
        recipe: gives the seed and the precision.
    """

    def __init__(self, folder: Path, teacher: nn.Module, data: ImageData, recipe: Recipe) -> None:
        self.teacher, self.images, self.recipe = teacher, data.train, recipe
        self.folder = folder / fingerprint(teacher, data, recipe.trainer.precision)
        self.shapes = {
            name: (len(self.images), width)
            for name, width in zip(("logits", "penultimate"), widths(teacher, self.images), strict=True)
        }
        # At once, lest a run die of it when it has begun.
        make_folder(self._file(0), _REMEDY)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        # One process of a run computes; the others read what it has written.
        for turn in (trainer.is_global_zero, not trainer.is_global_zero):
            if turn:
                held = kept(
                    self._file(epoch),
                    self.folder.name,
                    self.shapes,
                    lambda: self._compute(epoch, trainer, module.device),
                    _REMEDY,
                )
            trainer.strategy.barrier()
        self.logits, self.penultimate = held["logits"], held["penultimate"]

    def outputs(self, batch: Batch) -> Outputs:
        """What the teacher says of this epoch's batch, without its maps."""
        index, device = batch.index.cpu(), batch.images.device
        return Outputs(self.logits[index].to(device), Features((), self.penultimate[index].to(device)))

    def _file(self, epoch: int) -> Path:
        return self.folder / (f"seed{self.recipe.seed}-epoch{epoch}.pt" if self.images.augmented else "fixed.pt")

    @torch.no_grad()
    def _compute(self, epoch: int, trainer: L.Trainer, device: torch.device) -> dict[str, Tensor]:
        data = self.recipe.data
        batches = loader(self.images, data.test_batch_size, train=False, seed=self.recipe.seed, workers=data.workers)
        cast(EpochSampler, batches.sampler).set_epoch(epoch)
        logits, penultimate = [], []
        for batch in looking(batches):
            # As Lightning does with the batches that it fetches itself.
            images = trainer.precision_plugin.convert_input(batch.images).to(device)
            with trainer.precision_plugin.forward_context():
                said = Outputs(*self.teacher(images, return_features=True))
            logits.append(said.logits.cpu())
            penultimate.append(said.features.penultimate.cpu())
        return {"logits": torch.cat(logits), "penultimate": torch.cat(penultimate)}
