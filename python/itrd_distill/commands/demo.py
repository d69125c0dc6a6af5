"""`itrd-distill demo`: a teacher of handwritten digits, and a small student with few labels under four losses."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from itrd_distill import lines
from itrd_distill.data import ImageData, create_data
from itrd_distill.report import Experiment, Model, summarise, table, versions, write_page
from itrd_distill.results import run_folder
from itrd_distill.training.files import write_atomically
from itrd_distill.training.ownership import holds_run, owned
from itrd_distill.training.record import Record, digests_of
from itrd_distill.training.result import RunResult, digests_in
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, LossSettings, OptimizerSettings, Recipe, TrainerSettings

TEACHER, STUDENT = "convnet_32_64", "convnet_8_16"
STUDENT_IMAGES = 200
# The paper's weights, its α for two models of one family, and the benchmark's weights for KD.
METHODS = {
    "none": LossSettings("none"),
    "kd": LossSettings("kd", 0.1, {"weight": 0.9, "temperature": 4.0}),
    "itrd_corr": LossSettings("itrd", 1.0, {"beta_corr": 2.0, "beta_mi": 0.0, "alpha": 1.01}),
    "itrd": LossSettings("itrd", 1.0, {"beta_corr": 2.0, "beta_mi": 1.0, "alpha": 1.01}),
}
_BASE = Recipe(
    data=DataSettings("digits", batch_size=50),
    optimizer=OptimizerSettings(learning_rate=0.1),
    # On the processor, where models of this size are quickest.
    trainer=TrainerSettings(accelerator="cpu", checkpoint_every=20),
)


def demo_command(
    seeds: int = 5, epochs: int = 100, out: Path = Path("runs/demo"), console: Console | None = None
) -> Path:
    """Distil a student on scikit-learn's digits under every loss; print a table, write report.html and results.json.

    Args:
        seeds: runs of each loss, ≥ 1.
        epochs: passes of the student over its images, ≥ 1.
        out: folder for what is written.
        console: where to print.

    Returns:
        The path of the report.
    """
    for name, value in (("seeds", seeds), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"{name} must be ≥ 1, got {value}")
    with owned(Path(out)):
        return _demo(seeds, epochs, Path(out), console or lines.console())


def _demo(seeds: int, epochs: int, out: Path, console: Console) -> Path:
    full, few = create_data("digits"), create_data("digits", train_images=STUDENT_IMAGES)
    base = replace(_BASE, trainer=replace(_BASE.trainer, epochs=epochs))
    # The teacher has six times the images, and needs fewer epochs of them.
    of_teacher = replace(base, trainer=replace(base.trainer, epochs=max(1, 3 * epochs // 10)), student=TEACHER)
    students = {
        run_folder(out, method, seed): replace(base, student=STUDENT, loss=loss, method=method, seed=seed)
        for method, loss in METHODS.items()
        for seed in range(seeds)
    }
    made_from = digests_of(few)
    own = {directory: Record.of(recipe, made_from) for directory, recipe in students.items()}
    _check_own(out, {out / "teacher": Record.of(of_teacher, digests_of(full)), **own}, console)

    total = of_teacher.trainer.epochs + len(students) * epochs
    with _progress(console) as progress:
        task = progress.add_task("teacher", total=total)
        advance = lambda row: progress.advance(task)  # noqa: E731
        teacher, taught = train(of_teacher, out / "teacher", data=full, report=advance)
        runs = []
        for directory, recipe in students.items():
            progress.update(task, description=f"{recipe.method}, seed {recipe.seed}")
            runs.append(train(recipe, directory, data=few, teacher=teacher, report=advance)[1])
            if not console.is_terminal:
                accuracy = f"{100 * runs[-1].test_accuracy:.2f} % test accuracy"
                console.print(f"{recipe.method:9} seed {recipe.seed}: {accuracy}")
        progress.update(task, description="done")

    _write_results(out / "results.json", taught, runs)
    report = out / "report.html"
    write_page(_experiment(base, of_teacher, full, few, taught, runs), report)
    teacher_row = Model(TEACHER, taught.parameters, taught.test_accuracy)
    console.print(table("Student on scikit-learn's digits, after the last epoch", teacher_row, summarise(runs)))
    console.print(f"Learning curves and loss terms: {report}", soft_wrap=True)
    return report


def _check_own(out: Path, runs: dict[Path, Record], console: Console) -> None:
    """A ValueError if the folder holds something else than an earlier demo; that one, however long, is replaced."""
    earlier = [directory for directory in (out, *runs) if holds_run(directory)]
    for directory in earlier:
        own = directory in runs and (directory / "recipe.yaml").is_file()
        if not own or Record.beside(directory, digests_in(directory)).changes(runs[directory], ["trainer.epochs"]):
            raise ValueError(f"{directory} holds a run that is none of the demo's: choose another --out")
    if earlier:
        console.print(f"The demo that was in {out} is replaced", soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<18}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _write_results(path: Path, taught: RunResult, runs: list[RunResult]) -> None:
    results = {
        "dataset": "digits",
        "teacher": {"model": TEACHER, "test_accuracy": taught.test_accuracy},
        "student": {"model": STUDENT, "parameters": runs[0].parameters},
        "runs": [
            {
                "method": run.method,
                "seed": run.seed,
                "test_accuracy": run.test_accuracy,
                "images_per_second": run.images_per_second,
                "curve": [{key: row[key] for key in ("epoch", "test_accuracy", "loss")} for row in run.history],
            }
            for run in runs
        ],
        "versions": versions(),
    }
    write_atomically(path, lambda partial: partial.write_text(json.dumps(results, indent=1), "utf-8"))


def _experiment(
    base: Recipe,
    of_teacher: Recipe,
    full: ImageData,
    few: ImageData,
    taught: RunResult,
    runs: list[RunResult],
) -> Experiment:
    optimizer = base.optimizer
    kd, itrd = METHODS["kd"].options, METHODS["itrd"].options
    return Experiment(
        title="Distilling handwritten digits",
        dataset=(
            f"scikit-learn's digits, 8×8 pixels: the teacher learns from {len(full.train):,} images, "
            f"the student from {len(few.train):,} of them"
        ),
        teacher=Model(TEACHER, taught.parameters, taught.test_accuracy),
        student=Model(STUDENT, runs[0].parameters),
        runs=runs,
        test_images=len(few.test),
        notes=[
            "Every seed gives all four methods the same initial student and the same order of images; teacher, images "
            "and settings are shared. Speed counts training alone, with the teacher's forward pass where there is one; "
            "with models this small it is mostly the training loop's own cost.",
        ],
        settings={
            "Student": f"{base.trainer.epochs} epochs in batches of {base.data.batch_size}",
            "Teacher": f"{of_teacher.trainer.epochs} epochs, one seed, the same optimizer",
            "Optimizer": f"SGD, learning rate {optimizer.learning_rate} falling to 0 on a cosine, momentum "
            f"{optimizer.momentum}, weight decay {optimizer.weight_decay}",
            "KD": f"temperature {kd['temperature']:g}, w = {kd['weight']:g}",
            "ITRD": f"β_corr = {itrd['beta_corr']:g}, β_mi = {itrd['beta_mi']:g} (0 for correlation alone), "
            f"α = {itrd['alpha']:g}; FusedITRDLoss, backend auto",
            "Random state": "seeds 0 to " + str(max(run.seed for run in runs)),
        },
        versions=versions(),
    )
