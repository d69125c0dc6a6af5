"""Both fused backends against float64 on the device: losses and gradients, on fresh random inputs for every case.

A row is a backend on a problem. `results` holds, for each loss and gradient, [‖error‖ / ‖reference‖, what the budget
allows, verdict]: "within" the budget, within the "allowance" that matrix units need (they truncate while they
accumulate), or a "fault", which is described: the worst index, both values, the seed.
"""

from collections.abc import Iterator

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
        row = {"backend": backend, "kind": problem.kind, "n": problem.n, "d": problem.d, "variant": problem.variant}
        rows.append(row)
        if not day.part(backend):
            row["failed"] = "an earlier attempt died here"
            continue
        with kept(row), precision(problem.kind):
            got = step(problem, inputs, backend, None)
            row["results"], faults = {}, []
            for name, truth in exact.items():
                eps = _rounding(problem, name, inputs[0].dtype)
                allowance = _truncation(problem, inputs)
                verdict = judge(got[name], plain[name], truth, eps, sizes.get(name, 0.0), allowance)
                row["results"][name] = verdict[:3]
                if verdict[2] == "fault":
                    faults.append(f"{name}: {verdict[3]}")
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
    (UPSTREAM * losses.total).backward()
    found = {"total": losses.total.detach()}
    for name, z in zip(("grad_e", "grad_t", "grad_s"), leaves, strict=True):
        if z is not None and z.requires_grad:
            # Where nothing depends on an input, its gradient may be None or zeros.
            found[name] = torch.zeros_like(z) if z.grad is None else z.grad
    return found


def judge(
    got: Tensor, plain: Tensor, exact: Tensor, eps: float, size: float, truncation: float
) -> tuple[float, float, str, str]:
    """(relative error, allowed, verdict, description of a fault), normwise; where the truth is not finite, neither is
    what came."""
    got, plain, exact = got.double(), plain.double(), exact.double()
    known = exact.isfinite() & plain.isfinite()
    norm = torch.where(known, exact, 0.0).norm().item()
    scale = max(norm, size) or 1.0
    error = torch.where(known, got - exact, 0.0).norm().item()
    # Below the dtype's normal range a result is rounded to a multiple of its smallest number.
    tiny = 1e-7 * exact.numel() ** 0.5 if eps > 1e-4 else 0.0
    allowed = 2 * torch.where(known, plain - exact, 0.0).norm().item() + eps * scale + tiny
    # NaN and infinity surface: a number in their place would be a silent one.
    silent = (~exact.isfinite() & got.isfinite()).any().item()
    if error <= allowed and not silent:
        verdict = "within"
    else:
        verdict = "allowance" if error <= allowed + truncation * scale and not silent else "fault"
    return error / scale, allowed / scale, verdict, _worst(got, exact) if verdict == "fault" else ""


def _worst(got: Tensor, exact: Tensor) -> str:
    gap = torch.where(exact.isfinite(), (got - exact).abs(), torch.where(got.isfinite(), torch.inf, 0.0))
    gap = torch.where(gap.isnan(), torch.inf, gap)
    index = [int(i) for i in np.unravel_index(int(gap.argmax()), tuple(gap.shape))] if gap.dim() else []
    wrong = int((gap > 0.01 * exact.abs().nan_to_num(0, 0, 0).max()).sum())
    return f"worst at {index}: {got[tuple(index)]:.9g}, expected {exact[tuple(index)]:.9g}; {wrong} entries are far off"


def _rounding(problem: Problem, name: str, dtype: torch.dtype) -> float:
    """Four roundings (64 in float64, which has no truth above it) of what the result is held in."""
    if problem.kind == "tf32" and problem.what.betas[1]:
        return 4 * 2.0**-10
    if name == "total" or dtype == torch.float64:
        wide = torch.promote_types(dtype, torch.float32)
        return (64 if dtype == torch.float64 else 4) * torch.finfo(wide).eps
    return 4 * torch.finfo(dtype).eps


def _truncation(problem: Problem, inputs: list[Tensor | None]) -> float:
    """A float32 rounding for each of the d/16 steps in which a matrix unit accumulates a product of rows."""
    widest = max(z.shape[1] for z in inputs if z is not None)
    half = problem.kind in ("bfloat16", "float16") and problem.what.betas[1] != 0
    return widest / 16 * 2.0**-23 if half else 0.0


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
    return {name: size * (1.0 if name == "total" else UPSTREAM) for name, size in sizes.items()}
