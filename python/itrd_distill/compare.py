"""Methods × seeds of one pair of models, skipping what is finished, and the page that sets them side by side."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from rich.console import Console
from torch import nn

from itrd_distill.data import ImageData, create_data
from itrd_distill.report import Experiment, Model, Sweep, summarise, table, versions, write_page, write_plots
from itrd_distill.speed import measure_speeds
from itrd_distill.training.checkpoints import latest
from itrd_distill.training.files import known_accuracy, write_atomically
from itrd_distill.training.run import RunResult, load_teacher, train
from itrd_distill.training.settings import Recipe

# What may differ between a finished run and what is asked for without making it another run.
_MACHINE = {
    "teacher": ("cache",),
    "data": ("root", "download", "workers", "test_batch_size"),
    "trainer": ("accelerator", "devices", "checkpoint_every"),
}


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
    console = console or Console()
    first = next(iter(recipes.values()))
    data = create_data(first.data.name, first.data.root, first.data.download, **first.data.options)
    if train_teacher is not None and first.teacher.checkpoint and not Path(first.teacher.checkpoint).is_file():
        train_teacher()
    teacher = load_teacher(first, data)
    runs = []
    # Seed by seed: whoever stops early has every method.
    for seed in range(seeds):
        for method, recipe in recipes.items():
            recipe = replace(recipe, method=method, seed=seed)
            directory = out / method / f"seed{seed}"
            result = finished(directory, recipe)
            how = "finished before"
            if result is None:
                how = "trained"
                _, result = train(recipe, directory, data=data, teacher=teacher, checkpoint=latest(directory))
            console.print(f"{method}, seed {seed}: {100 * result.test_accuracy:.2f} % ({how})")
            runs.append(result)
    runs.sort(key=lambda run: list(recipes).index(run.method))
    runs, speed, notes = _with_speeds(runs, recipes, data, teacher, seeds, speed_seconds)
    write_results(out / "results.json", first, data, runs, command)
    report = out / "report.html"
    accuracy = known_accuracy(first.teacher.checkpoint)
    teacher_row = Model(first.teacher.model, sum(p.numel() for p in teacher.parameters()), accuracy)
    experiment = _experiment(first, data, teacher_row, runs, sweep, notes, speed)
    write_page(experiment, report)
    write_plots(experiment, out / "plots")
    console.print(table(f"{first.student} on {data.name}, after the last epoch", teacher_row, summarise(runs)))
    console.print(f"Page: {report}", soft_wrap=True)
    if transfer_to is not None:
        from itrd_distill.transfer import transfer

        transfer(transfer_to, first, runs, out, command, console)
    return report


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


def finished(directory: Path, recipe: Recipe) -> RunResult | None:
    """The result of a run that is complete; None if there is none yet.

    Raises:
        ValueError: the folder holds a run of other settings.
    """
    saved = directory / "recipe.yaml"
    if not saved.is_file():
        return None
    before, now = (_what_matters(settings) for settings in (yaml.safe_load(saved.read_text()), asdict(recipe)))
    if before != now:
        changed = ", ".join(sorted(key for key in now if before.get(key) != now[key]))
        raise ValueError(f"{directory} holds a run with other settings ({changed}): choose another --out or remove it")
    return RunResult.read(directory) if (directory / "run.json").is_file() else None


def write_results(path: Path, recipe: Recipe, data: ImageData, runs: list[RunResult], command: str = "") -> None:
    results = {
        "command": command,
        "dataset": data.name,
        "teacher": {
            "model": recipe.teacher.model,
            "checkpoint": recipe.teacher.checkpoint,
            "test_accuracy": known_accuracy(recipe.teacher.checkpoint),
        },
        "student": {"model": recipe.student, "parameters": runs[0].parameters},
        "runs": [asdict(run) for run in runs],
        "versions": versions(),
    }
    write_atomically(path, lambda partial: partial.write_text(json.dumps(results, indent=1)))


def _what_matters(settings: dict) -> dict:
    # Without a distillation loss the teacher is not looked at.
    ignored = {"name", "teacher"} if settings["loss"]["name"] == "none" else {"name"}
    return {
        key: {k: v for k, v in value.items() if k not in _MACHINE.get(key, ())} if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in ignored
    }


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
