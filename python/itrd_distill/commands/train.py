"""`itrd-distill train`: one run from the command line, with its progress."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Callback, RichProgressBar

from itrd_distill import lines
from itrd_distill.processes import is_first
from itrd_distill.training.callbacks import Row
from itrd_distill.training.checkpoints import latest, read
from itrd_distill.training.earlier import is_of
from itrd_distill.training.ownership import holds_run, owned
from itrd_distill.training.record import Record, digests_of
from itrd_distill.training.result import RunResult, finished, nothing_to_go_on_from
from itrd_distill.training.run import load_inputs, train
from itrd_distill.training.settings import Recipe


def train_command(
    recipe: Recipe,
    out: Path | None,
    resume: bool = False,
    overwrite: bool = False,
    ckpt_path: Path | None = None,
    read_from: Sequence[Path] = (),
) -> None:
    """Run the recipe in `out` and say what came out.

    Args:
        recipe: the run.
        out: its folder; the recipe's own if not given.
        resume: go on with the run that `out` holds, if it holds one.
        overwrite: replace the run that `out` holds.
        ckpt_path: go on from this checkpoint, of whichever run.
        read_from: files that the recipe was read from.
    """
    directory = out or recipe.folder()
    if resume and overwrite:
        raise ValueError("--resume goes on with an earlier run and --overwrite replaces it: give one of them")
    with owned(directory):
        if not (resume or holds_run(directory)):
            _check_elsewhere(read_from, directory / "recipe.yaml")
        checkpoint = _checkpoint(directory, resume, overwrite, ckpt_path)
        data, teacher = load_inputs(recipe)
        digests = None
        if is_first():
            digests = digests_of(data, teacher=teacher)
            if resume and (result := finished(directory, Record.of(recipe, digests), longer=True)):
                lines.console().print(f"Finished before, nothing is left to train: {directory}", soft_wrap=True)
                return _tell(result, directory)
        if resume and checkpoint is None and holds_run(directory):
            raise nothing_to_go_on_from(directory)
        result = _train(recipe, directory, data=data, teacher=teacher, digests=digests, checkpoint=checkpoint)
    if is_first():
        _tell(result, directory)
    return None


def _train(recipe: Recipe, directory: Path, **given) -> RunResult:
    console = lines.console()

    def line(row: Row) -> None:
        console.print(
            f"epoch {row['epoch'] + 1:>3}/{recipe.trainer.epochs}  loss {row['loss']:.4f}  "
            f"test accuracy {100 * row['test_accuracy']:.2f} %  {row['images_per_second']:,.0f} images/s"
        )

    bars: list[Callback] = [RichProgressBar()] if console.is_terminal else []
    return train(recipe, directory, report=None if bars else line, callbacks=bars, **given)[1]


def _tell(result: RunResult, directory: Path) -> None:
    console = lines.console()
    console.print(
        f"{result.method}, seed {result.seed}: test accuracy {100 * result.test_accuracy:.2f} %, "
        f"{result.images_per_second:,.0f} training images/s, {result.parameters:,} parameters"
    )
    console.print(f"Weights, checkpoints and logs: {directory}", soft_wrap=True)


def _check_elsewhere(read_from: Sequence[Path], written: Path) -> None:
    if any(path.resolve() == written.resolve() for path in read_from):
        raise ValueError(
            f"--recipe {written} is where the run writes its own, with all settings: give the file another name, or "
            "choose another --out"
        )


def _checkpoint(directory: Path, resume: bool, overwrite: bool, ckpt_path: Path | None) -> Path | None:
    """Where to go on from; a ValueError if that would cost an earlier run."""
    if ckpt_path is not None:
        if not ckpt_path.is_file():
            raise FileNotFoundError(f"--ckpt-path: no checkpoint at {ckpt_path}")
        read(ckpt_path)
    own = ckpt_path is not None and is_of(ckpt_path, directory)
    if own and overwrite:
        raise ValueError(f"--ckpt-path {ckpt_path} is of the run that --overwrite replaces: leave out --overwrite")
    if holds_run(directory) and not (resume or overwrite or own):
        raise ValueError(
            f"{directory} holds an earlier run: go on with it by --resume, replace it by --overwrite, "
            "or choose another --out"
        )
    if holds_run(directory) and ckpt_path is not None and not (overwrite or own):
        raise ValueError(
            f"{directory} holds an earlier run, and --ckpt-path {ckpt_path} is of another one: replace what is there "
            "by --overwrite, go on with it by --resume without --ckpt-path, or choose another --out"
        )
    return ckpt_path or (latest(directory) if resume else None)
