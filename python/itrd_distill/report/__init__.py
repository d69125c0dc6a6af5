"""The page that shows what came out of an experiment."""

from itrd_distill.report.page import Experiment, Model, write_page
from itrd_distill.report.summary import MethodSummary, summarise

__all__ = ["Experiment", "MethodSummary", "Model", "summarise", "write_page"]
