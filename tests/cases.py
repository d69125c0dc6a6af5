"""What the parity tests share: grids of cases, inputs, and the error budget."""

import itertools
import os
import random
import subprocess
import sys

import pytest
import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SAMPLES = (2, 3, 17, 64, 65, 257)
FEATURES = (1, 5, 31, 128, 208, 513)
ALPHAS = (0.3, 1.01, 1.5, 10.0)
LAYOUTS = ("contiguous", "wide rows", "transposed")
NEEDS = ("student", "teacher", "both")


# Whether slow tests are wanted; without, tens of thousands need not be collected. Set by conftest.py.
WHOLE_GRIDS = True


def pairwise(**axes):
    """All combinations of the axes; those that do not bring a new pair of values are marked slow."""
    cases = list(itertools.product(*axes.values()))
    random.Random(0).shuffle(cases)
    seen = set()
    params = []
    for case in cases:
        pairs = set(itertools.combinations(enumerate(case), 2))
        marks = () if pairs - seen else (pytest.mark.slow,)
        if marks and not WHOLE_GRIDS:
            continue
        seen |= pairs
        params.append(
            pytest.param(*case, marks=marks, id="-".join(str(value).removeprefix("torch.") for value in case))
        )
    return pytest.mark.parametrize(",".join(axes), params)


def features(n, d, dtype, seed=0, layout="contiguous"):
    """Random features (n, d) with column means and scales of their own, and correlated between seeds."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(n, d, generator=generator, dtype=torch.float64)
    generator.manual_seed(seed + 1)
    own = torch.randn(n, d, generator=generator, dtype=torch.float64)
    scale, mean = torch.rand(2, d, generator=generator, dtype=torch.float64)
    z = ((0.7 * common + own) * (scale + 0.5) + mean).to(dtype)
    if layout == "wide rows":
        wide = torch.full((n, d + 7), float("nan"), dtype=dtype)
        wide[:, 3 : 3 + d] = z
        return wide[:, 3 : 3 + d]
    return z.T.contiguous().T if layout == "transposed" else z


def gradients(function, inputs, needs="both", upstream=1.0, backward_passes=1):
    """(loss, gradients of the inputs that need one) of a scalar function of (student, teacher)."""
    leaves = [
        z.detach().requires_grad_(needs in (who, "both")) for z, who in zip(inputs, ("student", "teacher"), strict=True)
    ]
    loss = function(*leaves)
    for _ in range(backward_passes):
        loss.backward(torch.full_like(loss, upstream), retain_graph=backward_passes > 1)
    return loss.detach(), [z.grad for z in leaves if z.requires_grad]


def allowed_error(plain, exact, dtype, size=0.0, roundings=None):
    """Normwise: 2 × the plain formula's error + 4 roundings of the dtype, of the larger of ‖exact‖ and size.

    `plain` is the plain formula in `dtype` (float32 for half precision), `exact` the same in float64 on equal inputs,
    and `size` the norm of what cancels in `exact`; `roundings` stands for the 4 where products are rougher.
    """
    exact = exact.double()
    if roundings is None:
        # Against itself float64 has no truth above it: both sides round.
        roundings = (64 if dtype == torch.float64 else 4) * torch.finfo(dtype).eps
    allowed = 2 * (plain.double() - exact).norm() + roundings * max(exact.norm().item(), size)
    # A result below the dtype's normal range is rounded to a multiple of its smallest number.
    return allowed + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps * exact.numel() ** 0.5


def assert_within_budget(actual, plain, exact, dtype, size=0.0):
    """error ≤ allowed_error, normwise."""
    error, allowed = (actual.double() - exact.double()).norm(), allowed_error(plain, exact, dtype, size)
    assert error <= allowed, f"error {error:.3g} > {allowed:.3g} allowed, of {exact.norm():.3g}"


def run_python(*arguments, **environment):
    """A Python of its own, told `environment` and nothing of what ITRD_… and PYTEST_… told this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ITRD_"))}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**kept, **environment}, check=False
    )
