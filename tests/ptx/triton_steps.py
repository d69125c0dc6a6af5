"""Steps of the Triton backend whose launches the emulator executes, and what is asked of their results."""

from typing import NamedTuple

import torch
from compiled import instead_of_launching
from emulator import Stats
from steps import UPSTREAM, Case, judge, poisoned, reference_step
from torch import Tensor
from triton_on_emulator import ARCHITECTURE, execute

from itrd_kernels.backends.triton import launch

# How far from float64 a step in tf32 may be, for which the parity tests have no budget: losses and gradients, normwise.
TF32_LOSS, TF32_GRADIENT = 2e-3, 4e-3


class Step(NamedTuple):
    """(total, correlation, mutual_information, gradients of z_e, z_t, z_s), and each launch's kernel and Stats."""

    results: list[Tensor]
    launches: list[tuple[str, Stats]]


def step(case: Case, inputs: list[Tensor | None], **how) -> Step:
    """Forward and backward of the backend on the emulator; `how` goes to every launch."""
    launches = []

    def take(item) -> None:
        stats = execute(item, **how)
        # Reads of memory that nobody wrote and threads that left before a barrier raise nothing by themselves.
        assert not stats.found, f"{item.name}: {stats}"
        launches.append((item.name, stats))

    z_e, z_t, z_s = inputs
    want = (*case.want[:2], case.want[2] and z_s is not None)
    with instead_of_launching(take, ARCHITECTURE), poisoned():
        *scalars, moments, dgram_s, dgram_t = launch.forward(*inputs, *case.weights, *want, case.tf32)
        g = torch.full_like(scalars[0], UPSTREAM)
        grads = launch.backward(
            g, None, None, z_e, z_t, z_s, moments, dgram_s, dgram_t, case.beta_corr, case.beta_mi, *want
        )
    return Step([*scalars, *grads], launches)


def check(case: Case, inputs: list[Tensor | None] | None = None, order_seed: int = 0, **how) -> Step:
    """A step with blocks in a shuffled order: nothing races, and the results keep the budget."""
    inputs = case.inputs() if inputs is None else inputs
    done = step(case, inputs, order_seed=order_seed, global_races=True, **how)
    judge_rounded(case, inputs, done.results)
    return done


def judge_rounded(case: Case, inputs: list[Tensor | None], results: list[Tensor]) -> None:
    """The parity tests' budget, or that of tf32."""
    if not case.tf32:
        return judge(case, inputs, results)
    for index, (mine, error) in enumerate(zip(results, errors(case, inputs, results), strict=True)):
        allowed = TF32_LOSS if index < 3 else TF32_GRADIENT
        assert error is None or error <= allowed, f"result {index} is off by {error:.2g}, where {allowed} is allowed"
        assert error is not None or mine.isnan().all()
    return None


def errors(case: Case, inputs: list[Tensor | None], results: list[Tensor]) -> list[float | None]:
    """Of each result relative to float64, normwise; None for what is not computed."""
    found = []
    for mine, exact in zip(results, reference_step(case, inputs, torch.float64), strict=True):
        absent = not exact.numel() or exact.isnan().any()
        found.append(None if absent else ((mine.double() - exact).norm() / exact.norm()).item())
    return found
