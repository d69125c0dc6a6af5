"""Runs a case on a backend, and judges it by float64 within the error budget of cases.py."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from cases import assert_within_budget
from inputs import Case
from losses import LOSSES, Loss
from torch import Tensor


class Result(NamedTuple):
    """A loss and its gradients, None where they are not wanted or the loss does not read the input."""

    value: Tensor
    gradients: list[Tensor | None]


def run(case: Case, backend: str, tensors: list[Tensor]) -> Result:
    leaves = [z.detach().requires_grad_(want) for z, want in zip(tensors, case.want, strict=False)]
    torch.set_num_threads(1 if backend == "reference" else case.threads)
    with interpreted() if backend == "triton" else nullcontext():
        value = LOSSES[case.loss].call(*leaves, backend=backend, **case.settings)
        # The reference leaves no graph where a loss reads none of the inputs that want a gradient.
        wanted = [z for z in leaves if z.requires_grad and value.requires_grad]
        upstream = torch.full_like(value, case.upstream)
        grads = iter(torch.autograd.grad(value, wanted, upstream, allow_unused=True) if wanted else ())
    return Result(value.detach(), [next(grads, None) if z.requires_grad else None for z in leaves])


@contextmanager
def interpreted() -> Iterator[None]:
    """Triton's kernels under the sanitizer, with bfloat16 as a GPU has it."""
    from sanitizer import sanitized

    from itrd_kernels.backends.triton import launch

    widen, launch.widen_bfloat16 = launch.widen_bfloat16, False
    try:
        with sanitized():
            yield
    finally:
        launch.widen_bfloat16 = widen


def truth(case: Case, tensors: list[Tensor]) -> Result:
    """The formula's value and the reference's gradients in float64."""
    exact = run(case, "reference", [z.double() for z in tensors])
    # Only float64 needs a formula that is more exact.
    precision = np.longdouble if case.dtype == torch.float64 else np.float64
    return exact._replace(value=_formula(case, tensors, precision))


def _formula(case: Case, tensors: list[Tensor], precision: type = np.float64) -> Tensor:
    value = LOSSES[case.loss].formula(*arrays(tensors, precision), **case.settings)
    return torch.tensor(float(value), dtype=torch.float64)


def inputs_read(case: Case, tensors: list[Tensor]) -> list[int]:
    """Which of the inputs the loss depends on under the case's settings."""
    gradients = run(_all_wanted(case), "reference", [z.double() for z in tensors]).gradients
    return [index for index, gradient in enumerate(gradients) if gradient is not None]


def _all_wanted(case: Case) -> Case:
    return dataclasses.replace(case, want=(True,) * len(case.inputs))


def judge(case: Case, backend: str, tensors: list[Tensor], exact: Result) -> None:
    """The backend's loss and gradients within the budget of `exact`."""
    loss: Loss = LOSSES[case.loss]
    wide = torch.promote_types(case.dtype, torch.float32)
    precision = np.float64 if wide == torch.float64 else np.float32
    size, sizes = loss.sizes(*arrays(tensors, np.float64), **case.settings, precision=precision)
    # Beside the four roundings of the budget, a sum of k terms is off by some √k/2, whatever the order.
    growth = 1 + max(max(z.shape) for z in tensors) ** 0.5 / 8

    got = run(case, backend, tensors)
    assert got.value.dtype == wide
    # What a few roundings of the inputs do is the plain formula's error: the reference is judged here too.
    moved = [_moved(tensors, torch.finfo(wide).eps, seed) for seed in range(4)]
    _within_budget(got.value, [_formula(case, inputs) for inputs in moved], exact.value, wide, growth * size)
    # Of the truth itself too, in float64, which nothing is above.
    moved = moved if wide == torch.float64 else [[z.float() for z in tensors]]
    plain = zip(*(run(case, "reference", inputs).gradients for inputs in moved), strict=True)
    for index, (grad, rough, true, terms) in enumerate(zip(got.gradients, plain, exact.gradients, sizes, strict=True)):
        if true is None:
            # A loss need not know that it does not read an input; then it says that the gradient is zero.
            assert grad is None or not grad.any()
            continue
        assert grad.dtype == case.dtype
        # The forward pass may keep a gradient, which has no digits below the range of numbers.
        terms = torch.from_numpy(growth * abs(case.upstream) * (terms + np.finfo(precision).tiny))
        try:
            _judge_gradient(grad, list(rough), true, terms, loss.slices)
        except AssertionError as error:
            raise AssertionError(f"gradient of input {index}: {error}") from None


def _judge_gradient(got: Tensor, plain: list[Tensor], exact: Tensor, terms: Tensor, slices: int | None) -> None:
    # What the type cannot hold becomes an infinity.
    dtype, most = got.dtype, torch.finfo(got.dtype).max
    whole = [z.double().clamp(-most, most) for z in (got, exact, *plain)] + [terms]
    parts = [whole] if slices is None else zip(*(z.unbind(1 - slices) for z in whole), strict=True)
    for place, (mine, true, *rough, size) in enumerate(parts):
        try:
            _within_budget(mine, rough, true, dtype, size.norm().item())
        except AssertionError as error:
            where = {None: "", 0: f"column {place}: ", 1: f"row {place}: "}[slices]
            raise AssertionError(f"{where}{error}") from None


def _within_budget(got: Tensor, plain: list[Tensor], exact: Tensor, dtype: torch.dtype, size: float) -> None:
    farthest = max(plain, key=lambda z: (z.double() - exact).norm())
    assert_within_budget(got, farthest, exact, dtype, size)


def judge_slope(case: Case, tensors: list[Tensor], step: float = 1e-8) -> None:
    """The reference's gradients in float64 against differences of the formula, along a random direction."""
    if np.finfo(np.longdouble).eps > 1e-18:
        return  # Differences need numbers that are more exact than float64.
    loss: Loss = LOSSES[case.loss]
    gradients = run(_all_wanted(case), "reference", [z.double() for z in tensors]).gradients
    values, generator = arrays(tensors, np.longdouble), np.random.default_rng(case.seed)
    value_size, sizes = loss.sizes(*arrays(tensors, np.float64), **case.settings, precision=np.float64)
    # What rounding does to the differences, and the step's own error.
    moves, slope, allowed = [], 0.0, 4 * value_size * np.finfo(np.longdouble).eps / step
    for z, gradient, terms in zip(values, gradients, sizes, strict=True):
        # Each slice by a part of its size: columns that are alike and rows that are zero stay so.
        length = np.ptp(z, 0, keepdims=True) if loss.slices == 0 else np.abs(z).max(1, keepdims=True)
        moves.append(length * generator.normal(size=z.shape))
        slope += np.sum(moves[-1] * gradient.numpy()) / case.upstream
        allowed += 1e-6 * np.sum(np.abs(moves[-1]) * terms)
    after, before = (
        loss.formula(*(z + sign * step * move for z, move in zip(values, moves, strict=True)), **case.settings)
        for sign in (1, -1)
    )
    difference = (after - before) / (2 * step)
    assert abs(difference - slope) <= allowed, (
        f"slope {slope:.6g}, by differences {difference:.6g}, allowed {allowed:.3g}"
    )


def arrays(tensors: list[Tensor], precision: type) -> list[np.ndarray]:
    return [z.double().resolve_neg().numpy().astype(precision) for z in tensors]


def _moved(tensors: list[Tensor], eps: float, seed: int) -> list[Tensor]:
    """The inputs in float64, moved by about two roundings: neighbours apart, and columns that are alike together."""
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for z in (z.double() for z in tensors):
        apart = torch.randn(z.shape, generator=generator, dtype=z.dtype).abs()
        apart[::2] *= -1
        moved.append(z * (1 + 2 * eps * apart * (z != z[0]).any(0)))
    return moved
