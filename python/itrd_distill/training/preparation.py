"""What some losses train on the teacher alone before the student's training starts, such as FT's paraphraser."""

import lightning as L
import torch
from torch import Tensor, nn

from itrd_distill.data import Batch, ImageData, loader
from itrd_distill.losses import DistillationLoss, Outputs
from itrd_distill.training.callbacks import EpochSeed
from itrd_distill.training.fitting import fit
from itrd_distill.training.settings import Recipe

LEARNING_RATE = 0.01


class Preparation(L.LightningModule):
    """Minimises loss.preparation of the frozen teacher's outputs."""

    def __init__(self, loss: DistillationLoss, teacher: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.loss, self.teacher, self.recipe = loss, teacher.eval().requires_grad_(False), recipe

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        with torch.no_grad():
            teacher = Outputs(*self.teacher(batch.images, return_features=True))
        return self.loss.preparation(teacher)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.recipe.optimizer
        return torch.optim.SGD(
            [p for part in self.loss.prepared() for p in part.parameters()],
            LEARNING_RATE,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )


def prepare(loss: DistillationLoss, teacher: nn.Module, data: ImageData, recipe: Recipe) -> None:
    """Train the loss's `prepared` parts for its `preparation_epochs`, then freeze them."""
    # What the student trains later must not be waited for: several processes would, and fail.
    later = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    for parameter in later:
        parameter.requires_grad_(False)
    for part in loss.prepared():
        part.requires_grad_(True)
    trainer = L.Trainer(
        **recipe.trainer.machine(),
        max_epochs=loss.preparation_epochs,
        callbacks=[EpochSeed(recipe.seed)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    batches = loader(
        data.train,
        recipe.data.batch_size,
        train=True,
        seed=recipe.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        workers=recipe.data.workers,
    )
    fit(trainer, Preparation(loss, teacher, recipe), batches)
    for part in loss.prepared():
        part.requires_grad_(False)
    for parameter in later:
        parameter.requires_grad_(True)
