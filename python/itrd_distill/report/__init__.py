"""What came out of an experiment: a page with plots and a table in the terminal."""

from itrd_distill.report.page import Experiment, Model, write_page, write_plots
from itrd_distill.report.plots import Sweep
from itrd_distill.report.summary import MethodSummary, summarise, versions
from itrd_distill.report.table import table

__all__ = [
    "Experiment",
    "MethodSummary",
    "Model",
    "Sweep",
    "summarise",
    "table",
    "versions",
    "write_page",
    "write_plots",
]
