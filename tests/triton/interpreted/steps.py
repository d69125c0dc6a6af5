"""One step of the backend against the reference formula in float64, on ragged inputs, under the sanitizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import naive
import torch
from cases import assert_within_budget
from sanitizer import sanitized
from torch import Tensor

from itrd_kernels.backends.triton import launch as production
from itrd_kernels.formulas import itrd


class Case(NamedTuple):
    """A step: d_s = 0 means that the Gram term reads z_e, d_e = 0 that z_e is as wide as z_t.

    `want` are the gradients of z_e, z_t and z_s.
    """

    dtype: torch.dtype
    n: int = 37
    d_t: int = 50
    d_s: int = 0
    alpha: float = 1.5
    beta_corr: float = 2.0
    beta_mi: float = 1.0
    log: bool = False
    want: tuple[bool, bool, bool] = (True, True, True)
    tf32: bool = False
    d_e: int = 0

    def inputs(self, seed: int = 0) -> list[Tensor | None]:
        generator = torch.Generator().manual_seed(seed)
        z_e = torch.randn(self.n, self.d_t, generator=generator, dtype=torch.float64)
        z_t = torch.randn(self.n, self.d_t, generator=generator, dtype=torch.float64) + z_e
        if self.d_e:
            z_e = torch.randn(self.n, self.d_e, generator=generator, dtype=torch.float64)
        z_s = torch.randn(self.n, self.d_s, generator=generator, dtype=torch.float64) if self.d_s else None
        return [None if z is None else z.to(self.dtype) for z in (z_e, z_t, z_s)]

    @property
    def weights(self) -> tuple[float, float, float, bool]:
        return self.alpha, self.beta_corr, self.beta_mi, self.log


UPSTREAM = 3.0


@contextmanager
def poisoned() -> Iterator[None]:
    """Uninitialised memory is NaN within it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def step(case: Case, inputs: list[Tensor | None], launch=production, seed: int = 0) -> list[Tensor]:
    """(total, correlation, mutual_information, gradients of z_e, z_t, z_s) of the kernels."""
    z_e, z_t, z_s = inputs
    want = (*case.want[:2], case.want[2] and z_s is not None)
    widen, launch.widen_bfloat16 = launch.widen_bfloat16, False
    try:
        with sanitized(seed), poisoned():
            *scalars, moments, dgram_s, dgram_t = launch.forward(*inputs, *case.weights, *want, case.tf32)
            g = torch.full_like(scalars[0], UPSTREAM)
            grads = launch.backward(
                g, None, None, z_e, z_t, z_s, moments, dgram_s, dgram_t, case.beta_corr, case.beta_mi, *want
            )
    finally:
        launch.widen_bfloat16 = widen
    return [*scalars, *grads]


def reference_step(case: Case, inputs: list[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
    """The same of the plain formula in `dtype`."""
    leaves = [
        None if z is None else z.detach().to(dtype).requires_grad_(want)
        for z, want in zip(inputs, case.want, strict=True)
    ]
    scalars = itrd.terms(*leaves, *case.weights)
    wanted = [z for z in leaves if z is not None and z.requires_grad]
    grads = iter(torch.autograd.grad(UPSTREAM * scalars[0], wanted, allow_unused=True)) if wanted else iter(())
    empty = torch.empty(0, dtype=dtype)
    found = []
    for z in leaves:
        if z is None or not z.requires_grad:
            found.append(empty)
        else:
            gradient = next(grads)
            found.append(torch.zeros_like(z) if gradient is None else gradient)
    return [scalar.detach() for scalar in scalars] + found


def check(case: Case, inputs: list[Tensor | None] | None = None, launch=production, seed: int = 0) -> list[Tensor]:
    """The kernels' step within the error budget of the parity tests."""
    inputs = case.inputs() if inputs is None else inputs
    got = step(case, inputs, launch, seed)
    judge(case, inputs, got)
    return got


def judge(case: Case, inputs: list[Tensor | None], got: list[Tensor]) -> None:
    """A step's results within the error budget of the parity tests."""
    # float16 and bfloat16 are judged against the plain formula in float32 on the same values.
    wide = torch.promote_types(case.dtype, torch.float32)
    plain, exact = reference_step(case, inputs, wide), reference_step(case, inputs, torch.float64)
    sizes = [1 + 2 * case.alpha] * 3 + _gradient_sizes(case, inputs)
    for index, (mine, theirs, truth, size) in enumerate(zip(got, plain, exact, sizes, strict=True)):
        assert mine.shape == truth.shape
        assert torch.equal(mine.isnan(), truth.isnan())
        known = ~truth.isnan()
        assert_within_budget(mine[known], theirs[known], truth[known], wide if index < 3 else case.dtype, size)


def _gradient_sizes(case: Case, inputs: list[Tensor | None]) -> list[float]:
    """Of z_e, z_t and z_s: the norms of their gradients with every term taken absolutely."""
    e, t, s = (None if z is None else z.double().numpy() for z in inputs)
    student = e if s is None else s
    correlation = [0.0, 0.0]
    if case.beta_corr:
        correlation = [naive.correlation_gradient_size(*pair, case.alpha) for pair in ((e, t), (t, e))]
    gram = [naive.gram_gradient_size(student, t, of_teacher, case.log) for of_teacher in (False, True)]
    sizes = [
        case.beta_corr * correlation[0] + (case.beta_mi * gram[0] if s is None else 0.0),
        case.beta_corr * correlation[1] + case.beta_mi * gram[1],
        case.beta_mi * gram[0],
    ]
    return [UPSTREAM * size for size in sizes]
