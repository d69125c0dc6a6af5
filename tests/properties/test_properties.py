"""Every loss on every backend, on inputs that hypothesis makes hard: the budget against float64, NaN and infinities,
and what the losses do not feel. A later loss joins by its line in losses.py."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from delicate import DELICATE
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inputs import Case, cases
from invariances import INVARIANCES
from judging import Result, inputs_read, judge, judge_slope, run, truth
from losses import LOSSES

from itrd_kernels import backends

BACKENDS = ("reference", *backends.WITH_OPERATORS)

# Of the cases of a loss, which the profile of hypothesis counts, the share of each backend; and its largest n and d.
SHARES = {"reference": 0.2, "cpu": 0.4, "triton": 0.2, "cuda": 0.2}
LARGEST = {"reference": 40, "cpu": 260, "triton": 70, "cuda": 140}


def hold(check: Callable[..., None], backend: str, share: float, known: tuple[Case, ...] = (), **strategies) -> tuple:
    """Try a check on the known cases and on others, so many together; (backend, how many were tried)."""
    tried = 0

    @functools.wraps(check)
    def counted(**drawn):
        nonlocal tried
        check(**drawn)
        tried += 1

    test = given(**strategies)(counted)
    for case in known:
        test = example(case=case)(test)
    wanted = round(settings.default.max_examples * SHARES[backend] * share)
    settings(max_examples=wanted - len(known))(test)()
    return backend, tried


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradients(backend, loss, record_property):
    """Within the budget of tests/cases.py; the truth's own gradients agree with the formula."""

    def check(case):
        tensors = case.tensors()
        judge(case, backend, tensors, truth(case, tensors))
        if backend == "reference" and LOSSES[loss].slices is not None:
            judge_slope(case, tensors)

    record_property("cases", hold(check, backend, 0.6, DELICATE[loss], case=cases(loss, LARGEST[backend])))


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_and_infinity_surface(backend, loss, record_property):
    """One of them in any input that the loss reads makes it no finite number."""

    def check(case, which, row, column, bad):
        tensors = case.tensors()
        read = inputs_read(case, tensors)
        z = tensors[read[which % len(read)]]
        z[row % len(z), column % z.shape[1]] = bad
        value = run(case, backend, tensors).value
        assert not value.isfinite(), f"the loss is {value.item()}"

    where: dict[str, Any] = {name: st.integers(0, 300) for name in ("which", "row", "column")}
    bad = st.sampled_from([torch.nan, torch.inf, -torch.inf])
    record_property("cases", hold(check, backend, 0.2, case=cases(loss, LARGEST[backend]), **where, bad=bad))


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_loss_does_not_feel(backend, loss, record_property):
    """After a change that it does not feel, its value is what it was, and its gradients follow the change."""

    def check(case, change):
        tensors = case.tensors()
        generator = torch.Generator().manual_seed(case.seed)
        changed, carry = zip(*INVARIANCES[change](tensors, generator), strict=True)
        value, gradients = truth(case, tensors)
        carried = [g if g is None else follow(g) for g, follow in zip(gradients, carry, strict=True)]
        judge(case, backend, list(changed), Result(value, carried))

    changes = st.sampled_from(LOSSES[loss].invariances)
    record_property("cases", hold(check, backend, 0.2, case=cases(loss, LARGEST[backend], exact=True), change=changes))
