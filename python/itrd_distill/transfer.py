"""What a comparison's students have learnt that is of use on other images: Table 4 of the paper for all its runs."""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from itrd_distill.data import ImageData, create_data, loader
from itrd_distill.linear_probe import train_probe
from itrd_distill.models import create_model
from itrd_distill.report import Experiment, Model, summarise, table, versions, write_page, write_plots
from itrd_distill.results import run_folder, write_results
from itrd_distill.training.files import load_model
from itrd_distill.training.matching import check_fit
from itrd_distill.training.ownership import InUse, owned
from itrd_distill.training.provenance import data_digest, weights_digest
from itrd_distill.training.record import Record
from itrd_distill.training.result import RunResult, look
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


class _Probe(NamedTuple):
    """One of a comparison's: what it is, whose weights it is of, and where it goes."""

    recipe: Recipe
    weights: Path
    directory: Path

    def record(self, data: str) -> Record:
        """`data`: digest of the images."""
        there = self.weights.is_file()
        model = weights_digest(load_model(self.weights, self.recipe.student)) if there else "none yet"
        return Record.of(self.recipe, {"data": data, "model": model})


def look_at_probes(
    recipe: Recipe,
    comparison: Recipe,
    runs: Collection[Recipe],
    complete: Collection[Path],
    data: ImageData,
    out: Path,
) -> None:
    """Look at the folders of all probes and at the weights that are there, before the first run of a comparison begins.

    Args:
        recipe, comparison, data, out: as in `transfer`.
        runs: all that the comparison consists of.
        complete: folders of those that are.

    Raises:
        ValueError: a folder holds something else than its probe, or a run that is complete has lost its weights.
    """
    *of_students, of_teacher = _probes(recipe, comparison, runs, out)
    for probe in of_students:
        if probe.weights.parent in complete:
            try:
                load_model(probe.weights, recipe.student)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"--probe needs {probe.weights} of a run that is finished ({error}): remove "
                    f"{probe.weights.with_name('run.json')} to have it made again from the last checkpoint"
                ) from error
    made_from = data_digest(data)
    # A teacher that is yet to be trained is looked at again when it is.
    for probe in [*of_students, of_teacher] if of_teacher.weights.is_file() else of_students:
        # A folder in use is looked at when its turn comes.
        if probe.directory.exists():
            with contextlib.suppress(InUse), owned(probe.directory):
                look(probe.directory, probe.record(made_from))


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
    *of_students, of_teacher = _probes(recipe, comparison, runs, out)
    results = []
    for run, probe in zip(runs, of_students, strict=True):
        results.append(_once(probe, data, made_from))
        console.print(f"{run.method}, seed {run.seed}: {100 * results[-1].test_accuracy:.2f} % by a linear classifier")
    taught = _once(of_teacher, data, made_from)
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


def _probes(recipe: Recipe, comparison: Recipe, runs: Iterable[Recipe | RunResult], out: Path) -> Iterator[_Probe]:
    """Those of all students, and the teacher's after them."""
    folder = out / f"probe-{recipe.data.name}"
    for run in runs:
        own = replace(recipe, method=run.method, seed=run.seed)
        weights = run_folder(out, run.method, run.seed) / "weights.pt"
        yield _Probe(own, weights, run_folder(folder, run.method, run.seed))
    teacher = comparison.teacher
    own = replace(recipe, student=str(teacher.model), method="teacher")
    yield _Probe(own, Path(str(teacher.checkpoint)), folder / "teacher")


def _once(probe: _Probe, data: ImageData, made_from: str) -> RunResult:
    record = probe.record(made_from)
    with owned(probe.directory):
        done, _ = look(probe.directory, record)
        return done or train_probe(probe.recipe, probe.weights, probe.directory, data, record.digests)
