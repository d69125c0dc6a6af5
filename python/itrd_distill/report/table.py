"""The summary as a table in the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from itrd_distill.report.page import Model
from itrd_distill.report.styles import styles
from itrd_distill.report.summary import MethodSummary


def table(title: str, teacher: Model, summaries: Sequence[MethodSummary]) -> Table:
    """Test accuracy, speed and size of the teacher and of the student under every method; the best in bold."""
    # Names are text, whatever the console makes of brackets.
    rows = Table(title=Text(title))
    rows.add_column("method")
    for heading in ("test accuracy, %", "training images/s", "parameters"):
        rows.add_column(heading, justify="right")
    known = "" if teacher.test_accuracy is None else f"{100 * teacher.test_accuracy:.2f}"
    rows.add_row("teacher", known, "", f"{teacher.parameters:,}", style="dim")
    looks = styles([summary.method for summary in summaries])
    best = max(summary.test_accuracy.mean for summary in summaries)
    for summary in summaries:
        mean, std = summary.test_accuracy
        rows.add_row(
            Text(looks[summary.method].label),
            f"{100 * mean:.2f} ± {100 * std:.2f}",
            f"{summary.images_per_second.mean:,.0f}",
            f"{summary.parameters:,}",
            style="bold" if mean == best else None,
        )
    return rows
