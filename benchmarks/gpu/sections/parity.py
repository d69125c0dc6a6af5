"""Both fused backends against float64 on the device: losses and gradients, on fresh random inputs for every case.

A row is a backend on a problem. `results` holds, for each loss and gradient, [‖error‖ / ‖reference‖, what the budget
allows, verdict]: "within" the budget, within the "allowance" that matrix units need (they truncate while they
accumulate), or a "fault", which is described: the worst index, both values, the seed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cases as budgets
import naive
import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import problems
from benchmarks.gpu.contenders import precision
from benchmarks.gpu.day import Case, Day, kept
from benchmarks.gpu.problems import Problem
from itrd_kernels.functional import itrd_loss

# What cancels in a gradient is summed on the host up to this n; beyond, nothing of note cancels.
LARGEST_SIZED = 300
UPSTREAM = 3.0
# As by a GradScaler: at large n most entries of a gradient would vanish in float16.
UPSTREAM_OF_FLOAT16 = 384.0


def cases(day: Day) -> Iterator[Case]:
    for problem in problems.rehearsed_problems() if day.rehearse else problems.all_problems():
        yield Case(problem.name, lambda problem=problem: check(day, problem))


def check(day: Day, problem: Problem) -> list[dict]:
    seed = day.seed(problem.name)
    inputs = problem.inputs(day.device, seed)
    wide = torch.promote_types(inputs[0].dtype, torch.float32)
    exact = step(problem, inputs, "reference", torch.float64)
    with precision(problem.kind):
        plain = step(problem, inputs, "reference", wide)
    sizes = _sizes(problem, inputs)
    rows = []
    for backend in day.backends:
        if not day.part(backend):
            continue
        row = {"backend": backend, "kind": problem.kind, "n": problem.n, "d": problem.d, "variant": problem.variant}
        rows.append(row)
        with kept(row), precision(problem.kind):
            got = step(problem, inputs, backend, None)
            row["results"], faults = {}, []
            for name, truth in exact.items():
                dtype = wide if name == "total" else inputs[0].dtype
                rough = _roundings(problem), _truncation(problem)
                verdict = judge(got[name], plain[name], truth, dtype, sizes.get(name, 0.0), *rough)
                row["results"][name] = verdict[:3]
                if verdict.verdict == "fault":
                    faults.append(f"{name}: {verdict.worst}")
            if faults:
                row |= {"failed": "; ".join(faults), "seed": seed}
    return rows


def step(problem: Problem, inputs: list[Tensor | None], backend: str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Losses, and the gradients that are wanted, of the inputs in `dtype` (None: as they are)."""
    what = problem.what
    leaves = [
        None if z is None else (z if dtype is None else z.to(dtype)).detach().requires_grad_(want)
        for z, want in zip(inputs, what.want, strict=True)
    ]
    losses = itrd_loss(
        *leaves, alpha=what.alpha, beta_corr=what.betas[0], beta_mi=what.betas[1], log=what.log, backend=backend
    )
    (_upstream(problem) * losses.total).backward()
    found = {"total": losses.total.detach()}
    for name, z in zip(("grad_e", "grad_t", "grad_s"), leaves, strict=True):
        if z is not None and z.requires_grad:
            # Where nothing depends on an input, its gradient may be None or zeros.
            found[name] = torch.zeros_like(z) if z.grad is None else z.grad
    return found


class Verdict(NamedTuple):
    """`error` and `allowed` are relative to the larger of the reference's norm and what cancels in it."""

    error: float
    allowed: float
    verdict: str
    worst: str


def judge(
    got: Tensor,
    plain: Tensor,
    exact: Tensor,
    dtype: torch.dtype,
    size: float,
    roundings: float | None,
    truncation: float,
) -> Verdict:
    """Within the budget of tests/cases.py, normwise; where the truth is not finite, what came must not be either."""
    got, exact = got.double(), exact.double()
    known = exact.isfinite()
    got_known, plain_known, exact_known = (torch.where(known, x, 0.0) for x in (got, plain.double(), exact))
    scale = max(exact_known.norm().item(), size) or 1.0
    error = (got_known - exact_known).norm().item()
    allowed = budgets.allowed_error(plain_known, exact_known, dtype, size, roundings).item()
    # NaN and infinity surface: a number in their place would be a silent one.
    silent = (~known & got.isfinite()).any().item()
    if error <= allowed and not silent:
        verdict = "within"
    else:
        verdict = "allowance" if error <= allowed + truncation * scale and not silent else "fault"
    return Verdict(error / scale, allowed / scale, verdict, _worst(got, exact) if verdict == "fault" else "")


def _worst(got: Tensor, exact: Tensor) -> str:
    gap = torch.where(exact.isfinite(), (got - exact).abs(), torch.where(got.isfinite(), torch.inf, 0.0))
    gap = torch.where(gap.isnan(), torch.inf, gap)
    index = [int(i) for i in np.unravel_index(int(gap.argmax()), tuple(gap.shape))] if gap.dim() else []
    wrong = int((gap > 0.01 * exact.abs().nan_to_num(0, 0, 0).max()).sum())
    return f"worst at {index}: {got[tuple(index)]:.9g}, expected {exact[tuple(index)]:.9g}; {wrong} entries are far off"


def _roundings(problem: Problem) -> float | None:
    """Products of tf32 have four roundings of tf32."""
    return 4 * 2.0**-10 if problem.kind == "tf32" and problem.what.betas[1] else None


def _truncation(problem: Problem) -> float:
    """A float32 rounding for each of the d/16 steps in which a matrix unit accumulates a product of rows."""
    half = problem.kind in ("bfloat16", "float16") and problem.what.betas[1] != 0
    return problem.d / 16 * 2.0**-23 if half else 0.0


def _sizes(problem: Problem, inputs: list[Tensor | None]) -> dict[str, float]:
    """Of losses and gradients: the norm of what cancels in them (tests/naive.py)."""
    what, (beta_corr, beta_mi) = problem.what, problem.what.betas
    sizes = {"total": 1 + 2 * what.alpha}
    if problem.n > LARGEST_SIZED or what.hard in ("NaN", "inf"):
        return sizes
    e, t, s = (None if z is None else z.detach().double().cpu().numpy() for z in inputs)
    student = e if s is None else s
    correlation = [naive.correlation_gradient_size(*pair, what.alpha) for pair in ((e, t), (t, e))]
    gram = [naive.gram_gradient_size(student, t, of_teacher, what.log) for of_teacher in (False, True)]
    sizes["grad_e"] = beta_corr * correlation[0] + (beta_mi * gram[0] if s is None else 0.0)
    sizes["grad_t"] = beta_corr * correlation[1] + beta_mi * gram[1]
    sizes["grad_s"] = beta_mi * gram[0]
    return {name: size * (1.0 if name == "total" else _upstream(problem)) for name, size in sizes.items()}


def _upstream(problem: Problem) -> float:
    return UPSTREAM_OF_FLOAT16 if problem.kind == "float16" else UPSTREAM
