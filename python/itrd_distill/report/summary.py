"""Runs of one method over several seeds, in a few figures."""

import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

import torch

import itrd_kernels
from itrd_distill.training.result import RunResult


class Spread(NamedTuple):
    """Mean and sample standard deviation (0 for a single value)."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


class MethodSummary(NamedTuple):
    method: str
    seeds: int
    test_accuracy: Spread
    images_per_second: Spread
    parameters: int


def summarise(runs: Sequence[RunResult]) -> list[MethodSummary]:
    """One summary a method, in the order in which the methods first occur."""
    summaries = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        summaries.append(
            MethodSummary(
                method,
                len(own),
                Spread.of([run.test_accuracy for run in own]),
                Spread.of([run.images_per_second for run in own]),
                own[0].parameters,
            )
        )
    return summaries


def versions() -> dict[str, str]:
    """Of what the runs were made with."""
    packages = ("lightning", "torchmetrics", "scikit-learn")
    return {
        "python": platform.python_version(),
        "itrd_kernels": itrd_kernels.__version__,
        "torch": str(torch.__version__),
        **{package: version(package) for package in packages},
    }
