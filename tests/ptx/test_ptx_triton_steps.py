"""The Triton backend's kernels as compiled for sm_80: every step against float64, races and stray accesses refused."""

import functools
import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("is about compiled kernels", allow_module_level=True)

from emulated_steps import KINDS, case_of, every_pair
from emulated_steps import check as check_step
from triton_steps import step

from itrd_kernels.backends.triton import configurations

every_kind = pytest.mark.parametrize("kind", KINDS)
check = functools.partial(check_step, step)


# Each kind compiles kernels of its own, seconds each where Triton has not kept them.
@pytest.mark.parametrize(
    "kind", [kind if kind in ("float32", "bfloat16") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_ragged_step(kind):
    """All gradients of a step whose sizes are multiples of nothing."""
    check(case_of(kind, 37, 50, 21))


@pytest.mark.parametrize("kind", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_aligned_step(kind):
    """Widths that are multiples of 16 take wider loads and asynchronous copies."""
    check(case_of(kind, 64, 64, want=(True, False, False)))


def test_results_repeat_in_any_order():
    """Bit for bit, whatever the order of programs and warps."""
    ragged = case_of("float32", 37, 50, 21)
    first = check(ragged)
    for how in ({"order_seed": 3, "batch": 1}, {"order_seed": 5, "schedule": "warp"}):
        again = step(ragged, ragged.inputs(), **how)
        assert all(torch.equal(a, b) for a, b in zip(first.results, again.results, strict=True))


@pytest.mark.slow
@every_pair
def test_step(kind, shape, alpha, log, betas, want):
    beta_corr, beta_mi = betas
    check(case_of(kind, *shape, alpha=alpha, log=log, beta_corr=beta_corr, beta_mi=beta_mi, want=want))


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("shape", [(70, 130, 0), (130, 64, 96)], ids=str)
def test_tiles_of_large_batches(kind, shape, monkeypatch):
    """The second row of every table of configurations, which serves large n, at an n that the emulator can afford."""
    monkeypatch.setattr(configurations, "SMALL", 1)
    check(case_of(kind, *shape))


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("log", [False, True])
def test_panels(kind, log, monkeypatch):
    """W in panels of rows, as large n needs: the same result from several launches."""
    monkeypatch.setattr(configurations, "panels", lambda n, tiles, *_: [(0, 2), (2, 3), (3, tiles)])
    check(case_of(kind, 150, 20, 33, log=log))


@pytest.mark.slow
@every_kind
def test_one_warp_at_a_time(kind):
    check(case_of(kind, 37, 50, 21), order_seed=7, schedule="warp")


@pytest.mark.slow
@every_kind
def test_zero_rows_and_dead_columns(kind):
    chosen = case_of(kind, 40, 20, 33)
    z_e, z_t, z_s = chosen.inputs()
    z_s[3:30:5], z_t[1], z_e[:, 4], z_t[:, 7] = 0, 0, 2.5, 0
    check(chosen, [z_e, z_t, z_s])


@pytest.mark.slow
@pytest.mark.parametrize("magnitude", [1e-20, 1e20])
def test_extreme_rows_and_columns(magnitude):
    z_e, z_t, _ = case_of("float32", 40, 20).inputs()
    z_e[3:30:5] *= magnitude
    z_t[:, 4] *= magnitude
    check(case_of("float32", 40, 20, beta_corr=0.0), [z_e, z_t, None])
    z_e, z_t, _ = case_of("float32", 40, 20).inputs()
    z_e[:, 3] *= magnitude
    z_t[:, 4] *= magnitude
    check(case_of("float32", 40, 20, beta_mi=0.0), [z_e, z_t, None])
