"""One run: a student trained under one loss with one seed, its files, and what came out."""

import copy
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from torch import nn

from itrd_distill.data import ImageData, create_data, loader
from itrd_distill.losses import Context, Outputs, create_loss
from itrd_distill.models import create_model
from itrd_distill.processes import is_first
from itrd_distill.training.callbacks import EpochSeed, History, Row
from itrd_distill.training.checkpoints import LAST, SafeCheckpointIO, check_goes_on
from itrd_distill.training.earlier import Start, check_replaceable, is_of, is_run
from itrd_distill.training.files import save_model
from itrd_distill.training.finite import StopOnNonFiniteLoss
from itrd_distill.training.fitting import fit
from itrd_distill.training.loggers import loggers
from itrd_distill.training.matching import check_fit, evaluating, load_teacher
from itrd_distill.training.module import Distiller
from itrd_distill.training.ownership import owned
from itrd_distill.training.preparation import prepare
from itrd_distill.training.quiet import quieten_lightning
from itrd_distill.training.record import KeepRecord, Record, digests_of
from itrd_distill.training.result import RunResult
from itrd_distill.training.settings import Recipe
from itrd_distill.training.teacher_cache import TeacherCache


def train(
    recipe: Recipe,
    directory: Path,
    *,
    data: ImageData | None = None,
    teacher: nn.Module | None = None,
    student: nn.Module | None = None,
    report: Callable[[Row], None] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    digests: dict[str, str] | None = None,
) -> tuple[nn.Module, RunResult]:
    """Do what the recipe says; leave recipe.yaml, checkpoints, logs, weights.pt and run.json in `directory`.

    What an earlier run left there is replaced once the first checkpoint stands, and stays if it does not come to that.

    Args:
        recipe: the run.
        directory: of this run alone.
        data, teacher: given where several runs share them, else made as the recipe says.
        student: given where it is none of `create_model`.
        report: called with every epoch's row.
        callbacks: further ones of Lightning, such as a progress bar.
        checkpoint: go on from this one; where it lies elsewhere, what is in `directory` is another run.
        digests: of what the run is made from, where they are known; see `Record`.

    Returns:
        The trained student and the result.
    """
    quieten_lightning()
    goes_on = checkpoint is not None and is_of(checkpoint, directory)
    first = is_first()
    with owned(directory):
        if first and not (goes_on and is_run(directory)):
            check_replaceable(directory)
        data, teacher = load_inputs(recipe, data, teacher)
        if digests is None:
            digests = digests_of(data, teacher=teacher) if first else {}
        record = Record.of(recipe, digests)
        if checkpoint is not None and first:
            check_goes_on(checkpoint, record)
        # Seeded after the teacher, so that every method's student of one seed starts from the same weights.
        L.seed_everything(recipe.seed, verbose=False)
        student = student or create_model(recipe.student, data.num_classes)
        check_fit(student, f"student {recipe.student}", data)
        module = assemble(recipe, student, teacher, data)
        loss, taught_by = module.loss, module.teacher
        if checkpoint is None and loss is not None and taught_by is not None and loss.preparation_epochs:
            prepare(loss, taught_by, data, recipe)
        history = History(report)
        cache = _cache(recipe, module, data)
        start = Start(directory, goes_on)
        # The cache first: what it draws and how long it takes is no part of the epoch.
        own = [*cache, EpochSeed(recipe.seed), StopOnNonFiniteLoss(directory), history, KeepRecord(record)]
        trainer = _trainer(recipe, directory, [*own, *callbacks], start)
        placed = {"seed": recipe.seed, "rank": trainer.global_rank, "world_size": trainer.world_size}
        batches = loader(data.train, recipe.data.batch_size, train=True, workers=recipe.data.workers, **placed)
        tests = loader(data.test, recipe.data.test_batch_size, train=False, workers=recipe.data.workers, **placed)
        with start if first else nullcontext():
            if first:
                record.write(directory)
            fit(trainer, module, batches, tests, checkpoint=checkpoint)
            result = _summarise(recipe, student, history.rows, record)
            if first:
                save_model(directory / "weights.pt", student, recipe.student, data.num_classes, result.test_accuracy)
                result.write(directory)
        # The others may read the files next.
        trainer.strategy.barrier()
    return student, result


def load_inputs(
    recipe: Recipe, data: ImageData | None = None, teacher: nn.Module | None = None
) -> tuple[ImageData, nn.Module | None]:
    """The recipe's images, and its teacher if its loss needs one, where they are not given."""
    data = data or create_data(recipe.data.name, recipe.data.root, recipe.data.download, **recipe.data.options)
    if teacher is None and recipe.teacher.model is not None and recipe.loss.name != "none":
        teacher = load_teacher(recipe, data)
    return data, teacher


def example_outputs(student: nn.Module, teacher: nn.Module, data: ImageData) -> Context:
    """Outputs of both models for two training images, from which a loss learns the shapes."""
    images = data.train.__getitems__([(0, 0), (0, 1)]).images

    def of(model: nn.Module) -> Outputs:
        with evaluating(model):
            return Outputs(*model(images, return_features=True))

    return Context(of(student), of(teacher), data.train.labels)


def assemble(recipe: Recipe, student: nn.Module, teacher: nn.Module | None, data: ImageData) -> Distiller:
    """What is trained: the student, the frozen teacher and the loss between them."""
    loss, criterion = recipe.loss, None
    if loss.name is None or loss.name == "none":
        teacher = None
    elif teacher is None:
        raise ValueError(f"loss.name is {loss.name}, which needs a teacher: give teacher.model and teacher.checkpoint")
    else:
        criterion = create_loss(loss.name, example_outputs(student, teacher, data), **loss.options)
        if recipe.trainer.precision in ("bf16-true", "16-true", "64-true"):
            # Lightning turns all that it trains into these numbers, and other runs share the teacher.
            teacher = copy.deepcopy(teacher)
    module = Distiller(student, teacher, criterion, data.num_classes, recipe.optimizer, loss.cross_entropy_weight)
    return module.to(memory_format=torch.channels_last) if recipe.trainer.channels_last else module


def _cache(recipe: Recipe, module: Distiller, data: ImageData) -> list[TeacherCache]:
    """The teacher's cache, if one is wanted and its outputs are all that the loss reads; `module` then reads it."""
    loss, teacher = module.loss, module.teacher
    if recipe.teacher.cache is None or loss is None or teacher is None or loss.reads_maps:
        return []
    cache = TeacherCache(Path(recipe.teacher.cache), teacher, data, recipe)
    module.teacher_outputs = cache.outputs
    return [cache]


def _trainer(recipe: Recipe, directory: Path, callbacks: list[Callback], start: Start) -> L.Trainer:
    settings = recipe.trainer
    checkpoints = ModelCheckpoint(
        directory / "checkpoints",
        filename=Path(LAST).stem,
        every_n_epochs=min(settings.checkpoint_every, settings.epochs),
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return L.Trainer(
        default_root_dir=directory,
        **settings.machine(),
        max_epochs=settings.epochs,
        logger=loggers(directory),
        callbacks=[*callbacks, checkpoints],
        plugins=[SafeCheckpointIO(start.stands)],
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _summarise(recipe: Recipe, student: nn.Module, rows: list[Row], record: Record) -> RunResult:
    # The first epoch pays for warming up.
    speeds = [row["images_per_second"] for row in rows[1:] or rows]
    return RunResult(
        method=recipe.method or recipe.loss.name or "none",
        seed=recipe.seed,
        test_accuracy=rows[-1]["test_accuracy"],
        images_per_second=statistics.median(speeds),
        parameters=sum(p.numel() for p in student.parameters()),
        history=rows,
        made_from=record.digests,
    )
