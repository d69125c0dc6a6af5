"""Starts the run of `settings` once for each moment and kills it there with SIGKILL: python killed_runs.py FOLDER.

A process of its own that forks after its imports: a fork of pytest, whose torch has threads already, might hang.
"""

import os
import signal
import sys
from pathlib import Path

import lightning as L
import torch

from itrd_distill.data import create_data
from itrd_distill.models import create_model
from itrd_distill.training import checkpoints, run
from itrd_distill.training.settings import DataSettings, LossSettings, Recipe, TrainerSettings

RECIPE = Recipe(
    student="convnet_8_16",
    loss=LossSettings("crd", options={"negatives": 30}),
    data=DataSettings("digits", batch_size=16),
    trainer=TrainerSettings(epochs=4, accelerator="cpu"),
)


def settings():
    """Data that are shuffled and augmented, a teacher, and a loss that draws random numbers in every step."""
    data = create_data("digits", train_images=100)
    data.train.augmented = True
    torch.manual_seed(7)
    return {"data": data, "teacher": create_model("convnet_32_64", 10)}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt(L.Callback):
    """At a step of an epoch, at the end of an epoch before its checkpoint, or when all epochs are done."""

    def __init__(self, epoch=None, step=None):
        self.epoch, self.step = epoch, step

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if (trainer.current_epoch, batch_index) == (self.epoch, self.step):
            die()

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch and self.step is None:
            die()

    def on_train_end(self, trainer, module):
        if self.epoch is None:
            die()


def while_writing():
    """Half of the second checkpoint is in its file."""
    save, calls = torch.save, []

    def half(content, file, **options):
        save(content, file, **options)
        calls.append(file)
        if len(calls) == 2:
            os.truncate(file, os.path.getsize(file) // 2)
            die()

    torch.save = half


def between_renames():
    """The last checkpoint has become the previous one, and the new one is not yet the last."""
    replace = Path.replace

    def then_die(path, target):
        replace(path, target)
        if Path(target).name == checkpoints.PREVIOUS:
            die()

    Path.replace = then_die


def before_the_result():
    """weights.pt is there, run.json is not."""
    save_model = run.save_model

    def then_die(*arguments):
        save_model(*arguments)
        die()

    run.save_model = then_die


MOMENTS = {
    "first step": lambda: DieAt(0, 1),
    "middle of the second epoch": lambda: DieAt(1, 3),
    "first step of the last epoch": lambda: DieAt(3, 0),
    "before a checkpoint": lambda: DieAt(2),
    "while a checkpoint is written": while_writing,
    "between renames": between_renames,
    "all epochs done": lambda: DieAt(),
    "before the result": before_the_result,
}


def main(folder):
    for moment, arrange in MOMENTS.items():
        child = os.fork()
        if child == 0:
            callback = arrange()
            run.train(RECIPE, folder / moment, callbacks=[callback] if callback else [], **settings())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"the run to be killed at {moment!r} ended by itself")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
