"""One self-contained HTML page: what was compared, a table, the plots, the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2

from itrd_distill.report import plots
from itrd_distill.report.plots import Sweep
from itrd_distill.report.styles import Style, styles
from itrd_distill.report.summary import MethodSummary, summarise
from itrd_distill.training.files import write_atomically
from itrd_distill.training.result import RunResult


@dataclass
class Model:
    """A model of the experiment; test_accuracy where one is known for all runs, as a teacher's is."""

    name: str
    parameters: int
    test_accuracy: float | None = None


@dataclass
class Experiment:
    """What the page tells.

    Args:
        title: of the page.
        dataset: what was trained and tested on, in a few words.
        teacher, student: the models.
        runs: every method with every seed.
        test_images: size of the test set.
        notes: sentences that the reader should know beside the table.
        sweep: the setting that was varied, if one was.
        speed: whether the runs' images a second mean anything and are shown.
        settings: what all runs shared, name → value.
        versions: of the software.
    """

    title: str
    dataset: str
    teacher: Model
    student: Model
    runs: Sequence[RunResult]
    test_images: int
    notes: Sequence[str] = ()
    sweep: Sweep | None = None
    speed: bool = True
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_page(experiment: Experiment, path: Path) -> None:
    summaries = summarise(experiment.runs)
    looks = styles([summary.method for summary in summaries])
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(resources.files("itrd_distill.report").joinpath("page.html").read_text("utf-8"))
    page = template.render(
        experiment=experiment,
        summaries=summaries,
        baseline=next((s for s in summaries if s.method == "none"), None),
        improvements=relative_improvements(summaries),
        styles=looks,
        headline=headline(summaries, looks),
        plots=_plots(experiment, looks),
    )
    _write(path, page)


def write_plots(experiment: Experiment, folder: Path) -> None:
    """The page's plots as files of their own, NAME.svg."""
    looks = styles([summary.method for summary in summarise(experiment.runs)])
    for plot in _plots(experiment, looks):
        _write(folder / f"{plot.name}.svg", plot.standalone(looks))


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, "utf-8", "backslashreplace"))


def _plots(experiment: Experiment, looks: dict[str, Style]) -> list[plots.Plot]:
    runs = experiment.runs
    found = [plots.accuracy_curves(runs, looks)]
    if experiment.speed:
        found.append(plots.accuracy_against_speed(runs, looks, experiment.teacher.test_accuracy))
    if experiment.sweep:
        found.append(plots.sweep(runs, looks, experiment.sweep))
    return [*found, *plots.loss_terms(runs, looks)]


def relative_improvements(summaries: Sequence[MethodSummary]) -> dict[str, float]:
    """(X − Y) / (X − KD) for every method Y, X being ITRD: the paper's measure, where ITRD is better than KD."""
    mean = {summary.method: summary.test_accuracy.mean for summary in summaries}
    if not {"itrd", "kd"} <= mean.keys() or mean["itrd"] <= mean["kd"]:
        return {}
    others = (method for method in mean if method not in ("none", "kd", "itrd"))
    return {method: (mean["itrd"] - mean[method]) / (mean["itrd"] - mean["kd"]) for method in others}


def headline(summaries: Sequence[MethodSummary], looks: dict[str, Style]) -> str:
    """The result in a sentence or two, and whether the seeds bear it out."""
    ranked = sorted(summaries, key=lambda s: s.test_accuracy.mean, reverse=True)
    best = ranked[0]
    text = f"{looks[best.method].label} comes out best: {_percent(best)} test accuracy."
    if len(ranked) == 1:
        return text
    second = ranked[1]
    gap = 100 * (best.test_accuracy.mean - second.test_accuracy.mean)
    # Standard error of a difference of two means.
    error = 100 * sum(s.test_accuracy.std**2 / s.seeds for s in (best, second)) ** 0.5
    text += f" {looks[second.method].label} follows with {_percent(second)}, {gap:.2f} points behind"
    if best.seeds < 2:
        return text + "; one seed says nothing of chance."
    verdict = (
        "more than chance between seeds explains" if gap > 2 * error else "no more than chance between seeds explains"
    )
    return f"{text}, {verdict} (standard error of the difference {error:.2f})."


def _percent(summary: MethodSummary) -> str:
    mean, std = summary.test_accuracy
    return f"{100 * mean:.2f} ± {100 * std:.2f} %" if summary.seeds > 1 else f"{100 * mean:.2f} %"
