"""`itrd-distill train`: one run from the command line, with its progress."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from itrd_distill import lines
from itrd_distill.training.callbacks import Row
from itrd_distill.training.checkpoints import check, latest
from itrd_distill.training.run import train
from itrd_distill.training.settings import Recipe


def train_command(recipe: Recipe, out: Path | None, resume: bool, ckpt_path: Path | None) -> None:
    """Run the recipe in `out` and say what came out."""
    directory = out or recipe.folder()
    checkpoint = _checkpoint(directory, resume, ckpt_path)
    console = lines.console()

    def line(row: Row) -> None:
        console.print(
            f"epoch {row['epoch'] + 1:>3}/{recipe.trainer.epochs}  loss {row['loss']:.4f}  "
            f"test accuracy {100 * row['test_accuracy']:.2f} %  {row['images_per_second']:,.0f} images/s"
        )

    bars: list[Callback] = [RichProgressBar()] if console.is_terminal else []
    _, result = train(recipe, directory, report=None if bars else line, callbacks=bars, checkpoint=checkpoint)
    if rank_zero_only.rank != 0:
        return
    console.print(
        f"{result.method}, seed {result.seed}: test accuracy {100 * result.test_accuracy:.2f} %, "
        f"{result.images_per_second:,.0f} training images/s, {result.parameters:,} parameters"
    )
    console.print(f"Weights, checkpoints and logs: {directory}", soft_wrap=True)


def _checkpoint(directory: Path, resume: bool, ckpt_path: Path | None) -> Path | None:
    if ckpt_path is None:
        return latest(directory) if resume else None
    if not ckpt_path.is_file():
        raise FileNotFoundError(f"--ckpt-path: no checkpoint at {ckpt_path}")
    check(ckpt_path)
    return ckpt_path
