"""The frozen teacher's outputs on disk, by view, for every run that shows it the same views."""

import hashlib
from pathlib import Path

import lightning as L
import torch
from filelock import FileLock
from torch import Tensor, nn

from itrd_distill.data import Batch, ImageData, loader
from itrd_distill.losses import Outputs
from itrd_distill.models import Features
from itrd_distill.training.files import write_atomically
from itrd_distill.training.settings import Recipe


class TeacherCache(L.Callback):
    """Logits and penultimate features of all training images, one file for the views of each epoch.

    What an image looks like is a function of seed, epoch and image alone, so every method and student that trains with
    one seed shows the teacher the same views; images that are not augmented look the same always and take one file.
    An epoch whose file is missing is computed before it begins, in the precision of the run.

    Args:
        folder: that holds the caches of all teachers and data sets.
        teacher: frozen.
        data: its training images are those that are cached.
        recipe: gives the seed and what the data are.
    """

    def __init__(self, folder: Path, teacher: nn.Module, data: ImageData, recipe: Recipe) -> None:
        self.teacher, self.images, self.recipe = teacher, data.train, recipe
        made_from = recipe.data.name, recipe.data.options, data.train.labels.tolist(), recipe.trainer.precision
        self.folder = folder / fingerprint(teacher, *made_from)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        path = self.folder / (f"seed{self.recipe.seed}-epoch{epoch}.pt" if self.images.augmented else "fixed.pt")
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Runs side by side: one computes, the others wait for it.
            with FileLock(path.with_suffix(".lock")):
                if not path.is_file():
                    held = self._compute(epoch, trainer, module.device)
                    write_atomically(path, lambda partial: torch.save(held, partial))
        trainer.strategy.barrier()
        held = torch.load(path, map_location="cpu", weights_only=True)
        self.logits, self.penultimate = held["logits"], held["penultimate"]

    def outputs(self, batch: Batch) -> Outputs:
        """What the teacher says of this epoch's batch, without its maps."""
        index, device = batch.index.cpu(), batch.images.device
        return Outputs(self.logits[index].to(device), Features((), self.penultimate[index].to(device)))

    @torch.no_grad()
    def _compute(self, epoch: int, trainer: L.Trainer, device: torch.device) -> dict[str, Tensor]:
        data = self.recipe.data
        batches = loader(self.images, data.test_batch_size, train=False, seed=self.recipe.seed, workers=data.workers)
        batches.sampler.set_epoch(epoch)
        logits, penultimate = [], []
        with trainer.precision_plugin.forward_context():
            for batch in batches:
                said = Outputs(*self.teacher(batch.images.to(device), return_features=True))
                logits.append(said.logits.cpu())
                penultimate.append(said.features.penultimate.cpu())
        return {"logits": torch.cat(logits), "penultimate": torch.cat(penultimate)}


def fingerprint(model: nn.Module, *rest: object) -> str:
    """A name for a model's weights and what else is given."""
    digest = hashlib.sha256(repr(rest).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
