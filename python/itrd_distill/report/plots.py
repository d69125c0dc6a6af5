"""Plots as SVG text to stand inside a page: ink takes the page's colour, methods take the page's variables."""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from itrd_distill.report.styles import Style
from itrd_distill.training.result import RunResult

# A colour that occurs nowhere else stands for the page's text colour.
_INK = "#010203"
_DARK_INK = "#222222"
# Matplotlib's own type names every one of its hundreds of settings.
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": _INK,
    "grid.alpha": 0.14,
    "axes.grid": True,
    "lines.linewidth": 1.6,
    "text.parse_math": False,
    "axes.xmargin": 0.02,
    "axes.unicode_minus": True,
}
# Title and axis label of each logged term, in the order in which the panels stand; other terms follow by name.
_TERMS = {
    "cross_entropy": ("Cross-entropy", "cross-entropy (nats)"),
    "kd": ("KD term", "T² · KL divergence (nats)"),
    "correlation": ("Correlation loss of ITRD", "correlation loss (bits)"),
    "mutual_information": ("Mutual-information loss of ITRD", "mutual-information loss"),
}
_NOT_TERMS = ("epoch", "loss", "test_accuracy", "images_per_second")


class Plot(NamedTuple):
    name: str
    title: str
    caption: str
    svg: str

    def standalone(self, styles: dict[str, Style]) -> str:
        """The drawing as a file of its own: on white, in the colours of a light page, the methods named below it."""
        text = self.svg.replace("currentColor", _DARK_INK)
        for style in styles.values():
            text = text.replace(f"var({style.variable})", style.light)
        width, height = (float(size) for size in re.findall(r'viewBox="0 0 (\S+) (\S+)"', text)[0])
        names = [
            _name(style, 20 + width / 2 * (i % 2), height + 10 + 13 * (i // 2))
            for i, style in enumerate(styles.values())
        ]
        height += 13 * -(-len(names) // 2) + 4
        text = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {height:g}"', text, count=1)
        text = text.replace("<svg ", '<svg style="background: white" ', 1)
        return text.replace("</svg>", "\n".join([*names, "</svg>"]))


def _name(style: Style, x: float, y: float) -> str:
    """A stroke in a method's look, and the method's name."""
    dashes = " ".join(f"{1.6 * length:g}" for length in style.dash) or "none"
    return (
        f'<path d="M {x:g} {y:g} h 24" stroke="{style.light}" stroke-width="1.6" stroke-dasharray="{dashes}"/>'
        f'<text x="{x + 30:g}" y="{y + 3:g}" style="font: 9px sans-serif; fill: {_DARK_INK}">'
        f"{escape(style.label)}</text>"
    )


def accuracy_curves(runs: Sequence[RunResult], styles: dict[str, Style]) -> Plot:
    figure, axes = _panel("epoch", "test accuracy (%)")
    early = []
    for method, style in styles.items():
        epochs, values = _table(runs, method, "test_accuracy")
        _band(axes, epochs, 100 * values, style)
        early.append(100 * values.mean(axis=0)[len(epochs) // 8])
    # The first eighth of the epochs, which climbs from chance, would flatten all that is of interest.
    top = max(100 * row["test_accuracy"] for run in runs for row in run.history)
    bottom = max(0.0, min(early) - 2)
    axes.set_ylim(bottom, top + 0.05 * (top - bottom) + 0.2)
    caption = "Mean over the seeds; the band is ± one standard deviation."
    if bottom > 100 * min(row["test_accuracy"] for run in runs for row in run.history):
        caption += " The first epochs start below the axis."
    return Plot("accuracy", "Accuracy while training", caption, _svg(figure, "accuracy", styles))


def accuracy_against_speed(
    runs: Sequence[RunResult], styles: dict[str, Style], teacher_accuracy: float | None = None
) -> Plot:
    figure, axes = _panel("training images per second", "test accuracy (%)")
    for method, style in styles.items():
        own = [run for run in runs if run.method == method]
        accuracy = np.array([100 * run.test_accuracy for run in own])
        speed = np.array([run.images_per_second for run in own])
        look = {"color": style.light, "marker": style.marker, "linestyle": "none"}
        axes.plot(speed, accuracy, markersize=4, alpha=0.4, markeredgewidth=0, **look)
        spread = {"xerr": speed.std(ddof=1), "yerr": accuracy.std(ddof=1)} if len(own) > 1 else {}
        axes.errorbar(speed.mean(), accuracy.mean(), markersize=8, elinewidth=1.4, **spread, **look)
    if teacher_accuracy is not None:
        axes.axhline(100 * teacher_accuracy, color=_INK, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "teacher", (1, 100 * teacher_accuracy), xycoords=("axes fraction", "data"), va="bottom", ha="right",
            xytext=(0, 2), textcoords="offset points", color=_INK,
        )  # fmt: skip
    axes.set_xlim(0, 1.06 * max(run.images_per_second for run in runs))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    caption = (
        "Large: mean and standard deviation after the last epoch. Small: every seed. Up and to the right is better."
    )
    return Plot("speed", "Accuracy against training speed", caption, _svg(figure, "speed", styles))


class Sweep(NamedTuple):
    """A setting that was varied: its name, and method → its value in that method's runs."""

    name: str
    values: dict[str, float]


def sweep(runs: Sequence[RunResult], styles: dict[str, Style], varied: Sweep) -> Plot:
    """Accuracy against the varied setting, mean and standard deviation over the seeds."""
    figure, axes = _panel(varied.name, "test accuracy (%)")
    points = sorted((value, method) for method, value in varied.values.items())
    accuracies = [np.array([100 * run.test_accuracy for run in runs if run.method == method]) for _, method in points]
    means = [accuracy.mean() for accuracy in accuracies]
    spreads = [accuracy.std(ddof=1) if len(accuracy) > 1 else 0 for accuracy in accuracies]
    axes.plot([value for value, _ in points], means, color=_INK, linewidth=1, alpha=0.5)
    for (value, method), mean, spread in zip(points, means, spreads, strict=True):
        look = styles[method]
        axes.errorbar(value, mean, spread, color=look.light, marker=look.marker, markersize=7, elinewidth=1.4)
    title = f"Accuracy against {varied.name}"
    return Plot("sweep", title, "Mean and standard deviation after the last epoch.", _svg(figure, "sweep", styles))


def loss_terms(runs: Sequence[RunResult], styles: dict[str, Style]) -> list[Plot]:
    """A panel for each term that some method logged."""
    logged = dict.fromkeys(name for run in runs for name in run.history[0] if name not in _NOT_TERMS)
    plots = []
    for term in sorted(logged, key=lambda name: [*_TERMS, name].index(name)):
        title, label = _TERMS.get(term, (term, term))
        methods = [m for m in styles if any(term in run.history[0] for run in runs if run.method == m)]
        figure, axes = _panel("epoch", label)
        for method in methods:
            _band(axes, *_table(runs, method, term), styles[method])
        caption = "Mean over each epoch's training batches, without its weight."
        plots.append(Plot(term, title, caption, _svg(figure, term, styles)))
    return plots


def _panel(x_label: str, y_label: str):
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.1, 2.9), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if x_label == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _table(runs: Sequence[RunResult], method: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs counted from 1 (E), and the column's values (seeds, E)."""
    histories = [run.history for run in runs if run.method == method]
    values = np.array([[row[column] for row in history] for history in histories], dtype=float)
    return np.array([row["epoch"] + 1 for row in histories[0]]), values


def _band(axes, epochs: np.ndarray, values: np.ndarray, style: Style) -> None:
    mean = values.mean(axis=0)
    dashes = (0, style.dash) if style.dash else "-"
    marker = style.marker if len(epochs) < 3 else None
    axes.plot(epochs, mean, color=style.light, linestyle=dashes, marker=marker)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - std, mean + std, color=style.light, alpha=0.15, linewidth=0)


def _svg(figure: Figure, name: str, styles: dict[str, Style]) -> str:
    buffer = io.StringIO()
    # A salt of its own keeps the identifiers of several drawings on one page apart, and the same from run to run.
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    for style in styles.values():
        text = text.replace(style.light, f"var({style.variable})")
    text = re.sub(r'(<svg [^>]*?)width="[^"]*pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*pt"', r"\1", text, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
