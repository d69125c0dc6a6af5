"""The CUDA backend's kernels as nvcc compiles them for sm_80, launched by the backend's own launch code: every step
against float64, races and stray accesses refused."""

import re

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

import cuda_on_emulator
import nvcc
from emulated_steps import KINDS, case_of, check, every_pair

from itrd_kernels.formulas.gram import gram

pytestmark = [pytest.mark.slow, pytest.mark.skipif(nvcc.NVCC is None, reason=nvcc.MISSING)]

# Of each loss, as dispatch.gram takes them.
PARAMETERS = {"mutual_information": (), "polynomial": (0.5, 3.0), "pkt": (1e-5, 5e-6)}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_tile = pytest.mark.parametrize("tile", [32, 64, 128])


@pytest.fixture(scope="module")
def step():
    from cuda_steps import step

    return step


@every_pair
def test_step(step, kind, shape, alpha, log, betas, want):
    beta_corr, beta_mi = betas
    check(step, case_of(kind, *shape, alpha=alpha, log=log, beta_corr=beta_corr, beta_mi=beta_mi, want=want))


@every_kind
@every_tile
def test_tiles(step, kind, tile, monkeypatch):
    """Every tile that larger batches take, at an n that the emulator can afford."""
    monkeypatch.setenv("ITRD_PTX_TILE", str(tile))
    check(step, case_of(kind, 70, 130, 0))


def test_every_kernel_has_run(step, monkeypatch):
    """None of the kernels in the sources is left out by the launches of these tests."""
    launched = set()
    for kind in KINDS:
        for tile in (32, 64, 128):
            monkeypatch.setenv("ITRD_PTX_TILE", str(tile))
            for betas in ((2.0, 1.0), (2.0, 0.0)):
                with cuda_on_emulator.executing(lambda kernel, _: launched.add(kernel)):
                    operators = getattr(torch.ops, cuda_on_emulator.NAMESPACE)
                    dtype, tf32 = KINDS[kind]
                    z = torch.randn(3, 4).to(dtype)
                    *scalars, moments, dgram_s, dgram_t = operators.forward(
                        z, z, None, 1.5, *betas, False, True, True, False, tf32
                    )
                    g = torch.ones_like(scalars[0])
                    operators.backward(g, None, None, z, z, None, moments, dgram_s, dgram_t, *betas, True, True, False)
                    rest = (None, None, 0, None, None, "mutual_information", (), None, None, None, True, True, tf32)
                    operators.gram(z, z, *rest)
    # Half precision without matrix units is for GPUs before sm_80, and tiles of float64 have 64 rows at most.
    older = re.compile(r"I(6__half|13__nv_bfloat16)NS_4Ieee")
    assert [kernel for kernel in cuda_on_emulator.modules().keys() - launched if not older.search(kernel)] == []


@every_kind
@pytest.mark.parametrize("rectangle", [False, True], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", list(PARAMETERS))
def test_pairs(kind, loss, rectangle):
    """The sweep over pairs in both schedules, with rows that hold NaN and do not count."""
    dtype, tf32 = KINDS[kind]
    n, rows = 70, slice(9, 50) if rectangle else slice(None)
    generator = torch.Generator().manual_seed(3)
    s, t = (torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype) for d in (20, 37))
    wide = torch.promote_types(dtype, torch.float32)
    given = torch.rand(2, n, generator=generator).to(wide) + 0.5 if loss == "pkt" else None
    keep = torch.arange(n) % 6 != 1
    s[~keep] = torch.nan
    s[::7] = 0

    def call(operator, dtype):
        # Copies, whose memory the launches can be seen to point to.
        z, kept = [x.to(dtype, copy=True) for x in (s, t)], keep.clone()
        marks = None if given is None else given.to(torch.promote_types(dtype, wide), copy=True)
        own = [*(x[rows].clone() for x in z), kept[rows].clone(), None if marks is None else marks[:, rows].clone()]
        other = [*z, kept, marks] if rectangle else [None] * 4
        return operator(
            *own[:2], *other[:2], rows.start or 0, own[2], other[2], loss, PARAMETERS[loss], None, own[3], other[3],
            True, True, tf32,
        )  # fmt: skip

    with cuda_on_emulator.executing(order_seed=5, global_races=True):
        actual = call(getattr(torch.ops, cuda_on_emulator.NAMESPACE).gram, dtype)
    exact = call(gram, torch.float64)
    # Sums of float64 entries, of float32, of weights and products in tf32.
    rough = 1e-11 if dtype == torch.float64 else 3e-5 if kind == "float32" else 1e-2
    for a, e in zip(actual, exact, strict=True):
        assert a.shape == e.shape
        assert (a.double() - e).norm() <= rough * e.norm()


@every_kind
def test_one_warp_at_a_time(step, kind):
    check(step, case_of(kind, 37, 50, 21), order_seed=7, schedule="warp")


def test_results_repeat_in_any_order(step):
    ragged = case_of("float32", 37, 50, 21)
    first = check(step, ragged)
    again = step(ragged, ragged.inputs(), order_seed=3, batch=1)
    assert all(torch.equal(a, b) for a, b in zip(first.results, again.results, strict=True))


@every_kind
def test_zero_rows_and_dead_columns(step, kind):
    chosen = case_of(kind, 40, 20, 33)
    z_e, z_t, z_s = chosen.inputs()
    z_s[3:30:5], z_t[1], z_e[:, 4], z_t[:, 7] = 0, 0, 2.5, 0
    check(step, chosen, [z_e, z_t, z_s])


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("magnitude", [1e-25, 1e25])
def test_extreme_rows(step, kind, magnitude):
    chosen = case_of(kind, 40, 20, beta_corr=0.0)
    z_e, z_t, _ = chosen.inputs()
    z_e[3:30:5] *= magnitude
    check(step, chosen, [z_e, z_t, None])
