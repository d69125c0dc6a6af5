"""What is asked of a step whose launches the emulator executes."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from cases import pairwise
from emulator import Stats
from steps import Case, judge, reference_step
from torch import Tensor

# How far from float64 a step in tf32 may be, for which the parity tests have no budget: losses and gradients, normwise.
TF32_LOSS, TF32_GRADIENT = 2e-3, 4e-3

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
KINDS = {"float16": (F16, False), "bfloat16": (BF16, False), "tf32": (F32, True), "float32": (F32, False),
         "float64": (F64, False)}  # fmt: skip

# Runs a case on inputs; options of `Module.launch` follow by name.
StepFunction = Callable[..., "Step"]


class Step(NamedTuple):
    """(total, correlation, mutual_information, gradients of z_e, z_t, z_s), and each launch's kernel and Stats."""

    results: list[Tensor]
    launches: list[tuple[str, Stats]]


def case_of(kind: str, *shape: int, **settings) -> Case:
    dtype, tf32 = KINDS[kind]
    return Case(dtype, *shape, tf32=tf32, **settings)


def noted(launches: list[tuple[str, Stats]], name: str, stats: Stats) -> None:
    """Reads of memory that nobody wrote and threads that left before a barrier raise nothing by themselves."""
    assert not stats.found, f"{name}: {stats}"
    launches.append((name, stats))


# Steps in which every pair of these values meets once; all combinations would take the emulator hours.
_grid = pairwise(
    kind=tuple(KINDS),
    shape=((3, 5, 0), (37, 50, 21), (64, 64, 0), (65, 17, 0), (33, 129, 5), (128, 256, 128)),
    alpha=(0.3, 1.5, 20.0),
    log=(False, True),
    betas=((2.0, 1.0), (0.0, 1.0), (2.0, 0.0)),
    want=((True, True, True), (True, False, True), (False, True, False), (False, False, False)),
)
every_pair = pytest.mark.parametrize(_grid.args[0], [chosen for chosen in _grid.args[1] if not chosen.marks])


def check(
    step: StepFunction, case: Case, inputs: list[Tensor | None] | None = None, order_seed: int = 0, **how
) -> Step:
    """A step with blocks in a shuffled order: nothing races, and the results keep the budget."""
    inputs = case.inputs() if inputs is None else inputs
    done = step(case, inputs, order_seed=order_seed, global_races=True, **how)
    if case.tf32:
        judge_tf32(case, inputs, done.results)
    else:
        judge(case, inputs, done.results)
    return done


def judge_tf32(case: Case, inputs: list[Tensor | None], results: list[Tensor]) -> None:
    exact = reference_step(case, inputs, torch.float64)
    for index, (mine, truth, error) in enumerate(zip(results, exact, errors(case, inputs, results), strict=True)):
        if error is None:
            # NaN where a term has no weight, nothing where no gradient is wanted, zeros where nothing depends on z.
            torch.testing.assert_close(mine.double(), truth, rtol=0, atol=0, equal_nan=True)
            continue
        allowed = TF32_LOSS if index < 3 else TF32_GRADIENT
        assert error <= allowed, f"result {index} is off by {error:.2g}, where {allowed} is allowed"


def errors(case: Case, inputs: list[Tensor | None], results: list[Tensor]) -> list[float | None]:
    """Of each result relative to float64, normwise; None for what is not computed."""
    found = []
    for mine, exact in zip(results, reference_step(case, inputs, torch.float64), strict=True):
        absent = not exact.numel() or exact.isnan().any() or not exact.norm()
        found.append(None if absent else ((mine.double() - exact).norm() / exact.norm()).item())
    return found
