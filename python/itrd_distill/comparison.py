"""Methods × seeds of one pair of models, skipping what is finished, and the page that sets them side by side."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.console import Console
from torch import nn

from itrd_distill import lines
from itrd_distill.data import ImageData, create_data
from itrd_distill.lines import say
from itrd_distill.models import create_model
from itrd_distill.processes import is_first
from itrd_distill.report import Experiment, Model, Sweep, summarise, table, versions, write_page, write_plots
from itrd_distill.results import run_folder, write_results
from itrd_distill.speed import measure_speeds
from itrd_distill.training.files import known_accuracy
from itrd_distill.training.matching import load_teacher
from itrd_distill.training.ownership import InUse, owned
from itrd_distill.training.record import Record, digests_of
from itrd_distill.training.result import RunResult, look
from itrd_distill.training.run import assemble, train
from itrd_distill.training.settings import Recipe
from itrd_distill.transfer import images_to_probe, look_at_probes, transfer

# Seconds that another comparison in the same folder is given to write its pages.
WAIT = 60.0


def compare(
    recipes: dict[str, Recipe],
    seeds: int,
    out: Path,
    *,
    sweep: Sweep | None = None,
    console: Console | None = None,
    train_teacher: Callable[[], None] | None = None,
    speed_seconds: float = 0.0,
    command: str = "",
    transfer_to: Recipe | None = None,
) -> Path:
    """Run every recipe with seeds 0, 1, …; write results.json and report.html.

    Args:
        recipes: method → recipe; all of one teacher, student and data set.
        seeds: runs of each.
        out: folder of the comparison; each run has its own below.
        sweep: the setting in which the recipes differ, for a plot against it.
        console: where to print.
        train_teacher: called where the teacher's checkpoint is missing.
        speed_seconds: measure every method's speed for so long, `seeds` times in turn, in place of what the runs noted.
        command: that asked for this, for results.json.
        transfer_to: also probe every student, and the teacher, by this recipe.

    Returns:
        The path of the report.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be ≥ 1, got {seeds}")
    console = console or lines.console()
    first = next(iter(recipes.values()))
    # All that the end needs is looked at before days of training.
    with owned(out, wait=WAIT):
        pass
    data = create_data(first.data.name, first.data.root, first.data.download, **first.data.options)
    others = images_to_probe(transfer_to, str(first.teacher.model)) if transfer_to is not None else None
    wanted = _runs(recipes, seeds, out)

    def look_at_all(digests: dict[str, str]) -> dict[Path, RunResult]:
        found = _results(wanted, digests)
        if transfer_to is not None and others is not None:
            look_at_probes(transfer_to, first, wanted.values(), found, others, out)
        return found

    if train_teacher is not None and first.teacher.checkpoint and not Path(first.teacher.checkpoint).is_file():
        if is_first():
            look_at_all(digests_of(data))
        train_teacher()
    teacher = load_teacher(first, data)
    told = {**asdict(first.teacher), "test_accuracy": known_accuracy(str(first.teacher.checkpoint))}
    del told["cache"]
    for recipe in recipes.values():
        assemble(recipe, create_model(recipe.student, data.num_classes), teacher, data)
    digests, found = {}, {}
    if is_first():
        digests = digests_of(data, teacher=teacher)
        found = look_at_all(digests)
    runs = _train_all(wanted, found, data, teacher, digests, console)
    report = out / "report.html"
    if not is_first():
        # The processes beside the first help to train, and that is done.
        return report
    runs, speed, notes = _with_speeds(runs, recipes, data, teacher, seeds, speed_seconds)
    teacher_row = Model(told["model"], sum(p.numel() for p in teacher.parameters()), told["test_accuracy"])
    experiment = _experiment(first, data, teacher_row, runs, sweep, notes, speed)
    with owned(out, wait=WAIT):
        write_results(out / "results.json", data.name, told, first.student, runs, command)
        write_page(experiment, report)
        write_plots(experiment, out / "plots")
    console.print(table(f"{first.student} on {data.name}, after the last epoch", teacher_row, summarise(runs)))
    console.print(f"Page: {report}", soft_wrap=True)
    if transfer_to is not None and others is not None:
        transfer(transfer_to, first, told, runs, others, out, command, console)
    return report


def _runs(recipes: dict[str, Recipe], seeds: int, out: Path) -> dict[Path, Recipe]:
    """All that a comparison consists of, by folder, in the methods' order."""
    return {
        run_folder(out, method, seed): replace(recipe, method=method, seed=seed)
        for method, recipe in recipes.items()
        for seed in range(seeds)
    }


def _results(runs: dict[Path, Recipe], digests: dict[str, str]) -> dict[Path, RunResult]:
    """Those of the runs that are complete.

    Raises:
        ValueError: a folder holds what the comparison may neither take nor go on with.
    """
    found = {}
    for directory, recipe in runs.items():
        if directory.exists():
            # A folder in use is looked at when its turn comes.
            with contextlib.suppress(InUse), owned(directory):
                result, _ = look(directory, Record.of(recipe, digests))
                if result is not None:
                    found[directory] = result
    return found


def _train_all(
    runs: dict[Path, Recipe],
    found: dict[Path, RunResult],
    data: ImageData,
    teacher: nn.Module,
    digests: dict[str, str],
    console: Console,
) -> list[RunResult]:
    """Every run's result, in their order; what is `found` complete is taken, what was started goes on."""
    results: dict[Path, RunResult] = {}
    # Seed by seed: whoever stops early has every method.
    left = sorted(runs, key=lambda directory: runs[directory].seed)
    for again in (False, True):
        busy = []
        for directory in left:
            recipe = runs[directory]
            try:
                with owned(directory):
                    result, how = _once(recipe, directory, found.get(directory), data, teacher, digests)
            except InUse as error:
                # Another comparison beside this one is at it; several processes cannot change their order each alone.
                if again or recipe.trainer.devices != 1:
                    raise
                say(f"{error}; going on with the others first")
                busy.append(directory)
                continue
            if is_first():
                console.print(f"{recipe.method}, seed {recipe.seed}: {100 * result.test_accuracy:.2f} % ({how})")
            results[directory] = result
        left = busy
    return [results[directory] for directory in runs]


def _once(
    recipe: Recipe,
    directory: Path,
    found: RunResult | None,
    data: ImageData,
    teacher: nn.Module,
    digests: dict[str, str],
) -> tuple[RunResult, str]:
    """The run's result, and how it came to be."""
    record = Record.of(recipe, digests)
    result, checkpoint = _agreed(lambda: (found, None) if found is not None else look(directory, record))
    if result is not None:
        return result, "finished before"
    return train(recipe, directory, data=data, teacher=teacher, checkpoint=checkpoint, digests=digests)[1], "trained"


def _agreed(look: Callable[[], Any]) -> Any:
    """What the first of several processes finds. One that has just been started finds the same by itself, for the
    first is waiting for it."""
    if not (dist.is_available() and dist.is_initialized()):
        return look()
    found = [look() if is_first() else None]
    dist.broadcast_object_list(found)
    return found[0]


def _with_speeds(
    runs: list[RunResult], recipes: dict[str, Recipe], data: ImageData, teacher: nn.Module, rounds: int, seconds: float
) -> tuple[list[RunResult], bool, list[str]]:
    """The runs, with speeds measured apart where `seconds` asks for it; whether to show speeds; what to say of them."""
    if seconds:
        speeds = measure_speeds(recipes, data, teacher, rounds, seconds)
        note = f"Speeds were measured after the runs: the methods in turn, {seconds:g} s each, {rounds} times."
        return [replace(run, images_per_second=speeds[run.method][run.seed]) for run in runs], True, [note]
    if any(recipe.teacher.cache for recipe in recipes.values()):
        return runs, False, ["No speeds are shown: the teacher's outputs came from a cache."]
    return runs, True, []


def _experiment(
    recipe: Recipe,
    data: ImageData,
    teacher: Model,
    runs: list[RunResult],
    sweep: Sweep | None,
    notes: list[str],
    speed: bool,
) -> Experiment:
    optimizer = recipe.optimizer
    course = f"times {optimizer.decay:g} after {optimizer.milestones}" if optimizer.milestones else "to 0 on a cosine"
    return Experiment(
        title=f"Distilling {teacher.name} into {recipe.student}",
        dataset=f"{data.name}, {len(data.train):,} training images",
        teacher=teacher,
        student=Model(recipe.student, runs[0].parameters),
        runs=runs,
        test_images=len(data.test),
        notes=notes,
        speed=speed,
        sweep=sweep,
        settings={
            "Training": f"{recipe.trainer.epochs} epochs in batches of {recipe.data.batch_size}",
            "Optimizer": f"SGD, learning rate {optimizer.learning_rate:g} {course}, momentum {optimizer.momentum:g}, "
            f"weight decay {optimizer.weight_decay:g}",
            "Precision": recipe.trainer.precision,
        },
        versions=versions(),
    )
