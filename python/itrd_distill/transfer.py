"""What a comparison's students have learnt that is of use on other images: Table 4 of the paper for all its runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from itrd_distill.data import ImageData, create_data, loader
from itrd_distill.models import create_model
from itrd_distill.probe import train_probe
from itrd_distill.report import Experiment, Model, summarise, table, versions, write_page, write_plots
from itrd_distill.results import write_results
from itrd_distill.training.files import load_model
from itrd_distill.training.matching import check_fit
from itrd_distill.training.ownership import owned
from itrd_distill.training.provenance import data_digest, weights_digest
from itrd_distill.training.record import Record
from itrd_distill.training.result import RunResult, finished
from itrd_distill.training.settings import Recipe


def images_to_probe(recipe: Recipe, teacher: str) -> ImageData:
    """The images of a probe of `recipe.student` and the teacher's model, after a look whether all fits.

    Raises:
        FileNotFoundError, ValueError: the images are not there, too few, or not such as a model takes.
    """
    data = create_data(recipe.data.name, recipe.data.root, recipe.data.download, **recipe.data.options)
    loader(data.train, recipe.data.batch_size, train=True)
    for name in (recipe.student, teacher):
        check_fit(create_model(name, data.num_classes), f"--probe {data.name}: {name}", data, classes=False)
    return data


def transfer(
    recipe: Recipe,
    comparison: Recipe,
    teacher: dict[str, Any],
    runs: Sequence[RunResult],
    data: ImageData,
    out: Path,
    command: str,
    console: Console,
) -> Path:
    """Probe the student of every run in `out` and the teacher; write results.json and report.html.

    Args:
        recipe: of the probe, its student being that of the runs.
        comparison: one of its recipes.
        teacher: model, checkpoint and test_accuracy, as results.json has them.
        runs: of the comparison; each left its weights in `out`.
        data: of `images_to_probe`.
        out: folder of the comparison.
        command: that asked for this, for results.json.
        console: where to print.

    Returns:
        The path of the report.
    """
    folder = out / f"probe-{recipe.data.name}"
    made_from = data_digest(data)
    results = []
    for run in runs:
        own = replace(recipe, method=run.method, seed=run.seed)
        weights = out / run.method / f"seed{run.seed}" / "weights.pt"
        results.append(_once(own, weights, folder / run.method / f"seed{run.seed}", data, made_from))
        console.print(f"{run.method}, seed {run.seed}: {100 * results[-1].test_accuracy:.2f} % by a linear classifier")
    of_teacher = replace(recipe, student=teacher["model"], method="teacher")
    taught = _once(of_teacher, Path(teacher["checkpoint"]), folder / "teacher", data, made_from)
    teacher_row = Model(teacher["model"], taught.parameters, taught.test_accuracy)
    page = Experiment(
        title=f"A linear classifier on the frozen {recipe.student}",
        dataset=f"Features of the students of {comparison.name}'s data set on {data.name}, "
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
    with owned(folder, wait=60):
        write_results(folder / "results.json", data.name, teacher, recipe.student, results, command)
        write_page(page, folder / "report.html")
        write_plots(page, folder / "plots")
    console.print(table(f"Linear classifier on {data.name}", teacher_row, summarise(results)))
    console.print(f"Page: {folder / 'report.html'}", soft_wrap=True)
    return folder / "report.html"


def _once(recipe: Recipe, weights: Path, directory: Path, data: ImageData, made_from: str) -> RunResult:
    digests = {"data": made_from, "model": weights_digest(load_model(weights, recipe.student))}
    with owned(directory):
        done = finished(directory, Record.of(recipe, digests))
        return done or train_probe(recipe, weights, directory, data, digests)
