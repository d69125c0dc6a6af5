"""What a comparison's students have learnt that is of use on other images: Table 4 of the paper for all its runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from itrd_distill.compare import finished, write_results
from itrd_distill.data import ImageData, create_data
from itrd_distill.probe import train_probe
from itrd_distill.report import Experiment, Model, summarise, table, versions, write_page, write_plots
from itrd_distill.training.run import RunResult
from itrd_distill.training.settings import Recipe


def transfer(recipe: Recipe, teacher: Recipe, runs: Sequence[RunResult], out: Path, command: str, console: Console):
    """Probe the student of every run in `out` and the teacher; write results.json and report.html.

    Args:
        recipe: of the probe, its student being that of the runs.
        teacher: a recipe of the comparison, for its teacher.
        runs: of the comparison; each left its weights in `out`.
        out: folder of the comparison.
        command: that asked for this, for results.json.
        console: where to print.

    Returns:
        The path of the report.
    """
    folder = out / f"probe-{recipe.data.name}"
    data = create_data(recipe.data.name, recipe.data.root, recipe.data.download, **recipe.data.options)
    results = []
    for run in runs:
        own = replace(recipe, method=run.method, seed=run.seed)
        weights = out / run.method / f"seed{run.seed}" / "weights.pt"
        results.append(_once(own, weights, folder / run.method / f"seed{run.seed}", data))
        console.print(f"{run.method}, seed {run.seed}: {100 * results[-1].test_accuracy:.2f} % by a linear classifier")
    of_teacher = replace(recipe, student=teacher.teacher.model, method="teacher")
    taught = _once(of_teacher, Path(teacher.teacher.checkpoint), folder / "teacher", data)
    write_results(folder / "results.json", replace(recipe, teacher=teacher.teacher), data, results, command)
    teacher_row = Model(teacher.teacher.model, taught.parameters, taught.test_accuracy)
    page = Experiment(
        title=f"A linear classifier on the frozen {recipe.student}",
        dataset=f"Features of the students of {teacher.name}'s data set on {data.name}, "
        f"{len(data.train):,} training images",
        teacher=teacher_row,
        student=Model(recipe.student, results[0].parameters),
        runs=results,
        test_images=len(data.test),
        notes=["Parameters are those of the linear classifier. The teacher's row is a classifier on its features."],
        speed=False,
        settings={"Training": f"{recipe.trainer.epochs} epochs in batches of {recipe.data.batch_size}"},
        versions=versions(),
    )
    write_page(page, folder / "report.html")
    write_plots(page, folder / "plots")
    console.print(table(f"Linear classifier on {data.name}", teacher_row, summarise(results)))
    console.print(f"Page: {folder / 'report.html'}", soft_wrap=True)
    return folder / "report.html"


def _once(recipe: Recipe, weights: Path, directory: Path, data: ImageData) -> RunResult:
    return finished(directory, recipe) or train_probe(recipe, weights, directory, data)
