"""The Triton backend's kernels as compiled for sm_80: every step against float64, races and stray accesses refused."""

import pytest
import torch
from cases import pairwise

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

from itrd_kernels.backends.triton import interpreting

if interpreting():
    pytest.skip("is about compiled kernels", allow_module_level=True)

from steps import Case
from triton_steps import check, step

from itrd_kernels.backends.triton import configurations

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
KINDS = {"float16": (F16, False), "bfloat16": (BF16, False), "tf32": (F32, True), "float32": (F32, False),
         "float64": (F64, False)}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def case(kind: str, *shape: int, **settings) -> Case:
    dtype, tf32 = KINDS[kind]
    return Case(dtype, *shape, tf32=tf32, **settings)


@every_kind
def test_ragged_step(kind):
    """All gradients of a step whose sizes are multiples of nothing."""
    check(case(kind, 37, 50, 21))


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_aligned_step(kind):
    """Widths that are multiples of 16 take wider loads and asynchronous copies."""
    check(case(kind, 64, 64, want=(True, False, False)))


def test_results_repeat_in_any_order():
    """Bit for bit, whatever the order of programs and warps."""
    ragged = case("float32", 37, 50, 21)
    first = check(ragged)
    for how in ({"order_seed": 3, "batch": 1}, {"order_seed": 5, "schedule": "warp"}):
        again = step(ragged, ragged.inputs(), **how)
        assert all(torch.equal(a, b) for a, b in zip(first.results, again.results, strict=True))


@pytest.mark.slow
@pairwise(
    kind=tuple(KINDS),
    shape=((3, 5, 0), (37, 50, 21), (64, 64, 0), (65, 17, 0), (33, 129, 5), (128, 256, 128)),
    alpha=(0.3, 1.5, 20.0),
    log=(False, True),
    betas=((2.0, 1.0), (0.0, 1.0), (2.0, 0.0)),
    want=((True, True, True), (True, False, True), (False, True, False), (False, False, False)),
)
def test_step(kind, shape, alpha, log, betas, want):
    beta_corr, beta_mi = betas
    check(case(kind, *shape, alpha=alpha, log=log, beta_corr=beta_corr, beta_mi=beta_mi, want=want))


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("shape", [(70, 130, 0), (130, 64, 96)], ids=str)
def test_tiles_of_large_batches(kind, shape, monkeypatch):
    """The second row of every table of configurations, which serves large n, at an n that the emulator can afford."""
    monkeypatch.setattr(configurations, "SMALL", 1)
    check(case(kind, *shape))


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("log", [False, True])
def test_panels(kind, log, monkeypatch):
    """W in panels of rows, as large n needs: the same result from several launches."""
    monkeypatch.setattr(configurations, "panels", lambda n, tiles, *_: [(0, 2), (2, 3), (3, tiles)])
    check(case(kind, 150, 20, 33, log=log))


@pytest.mark.slow
@every_kind
def test_one_warp_at_a_time(kind):
    check(case(kind, 37, 50, 21), order_seed=7, schedule="warp")


@pytest.mark.slow
@every_kind
def test_zero_rows_and_dead_columns(kind):
    chosen = case(kind, 40, 20, 33)
    z_e, z_t, z_s = chosen.inputs()
    z_s[3:30:5], z_t[1], z_e[:, 4], z_t[:, 7] = 0, 0, 2.5, 0
    check(chosen, [z_e, z_t, z_s])


@pytest.mark.slow
@pytest.mark.parametrize("magnitude", [1e-20, 1e20])
def test_extreme_rows_and_columns(magnitude):
    z_e, z_t, _ = case("float32", 40, 20).inputs()
    z_e[3:30:5] *= magnitude
    z_t[:, 4] *= magnitude
    check(case("float32", 40, 20, beta_corr=0.0), [z_e, z_t, None])
    z_e, z_t, _ = case("float32", 40, 20).inputs()
    z_e[:, 3] *= magnitude
    z_t[:, 4] *= magnitude
    check(case("float32", 40, 20, beta_mi=0.0), [z_e, z_t, None])
