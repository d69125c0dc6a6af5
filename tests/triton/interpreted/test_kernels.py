"""Every kernel under the sanitizer against float64: dtypes × ragged shapes × α × needed gradients, and its own paths.

The parity tests, whose hard inputs every backend must pass, run beside these; see ../test_interpreter.py.
"""

import pytest
import torch
from cases import pairwise
from steps import Case, check, step

from itrd_kernels.backends.triton import configurations, launch

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pairwise(
    dtype=(F64, F32, F16, BF16),
    shape=((2, 1, 0), (37, 50, 21), (65, 17, 0), (33, 129, 5)),
    alpha=(0.3, 1.5, 20.0),
    log=(False, True),
    betas=((2.0, 1.0), (0.0, 1.0), (2.0, 0.0)),
    want=((True, True, True), (True, False, True), (False, True, False), (False, False, False)),
)
def test_step(dtype, shape, alpha, log, betas, want):
    check(Case(dtype, *shape, alpha, *betas, log, want))


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("log", [False, True])
def test_panels(dtype, log, monkeypatch):
    """W in panels of rows, as large n needs: the same result from several launches."""
    monkeypatch.setattr(configurations, "panels", lambda n, tiles, *_: [(0, 2), (2, 3), (3, tiles)])
    check(Case(dtype, 150, 20, 33, log=log))


@pytest.mark.parametrize("kind", ["ieee", "half"])
def test_tiles_of_large_batches(kind, monkeypatch):
    monkeypatch.setattr(configurations, "SMALL", 1)
    check(Case(F32 if kind == "ieee" else F16, 70, 130, 0))


@pytest.mark.parametrize("magnitude", [1e-20, 1e20])
def test_extreme_rows_and_columns(magnitude):
    case = Case(F32, 40, 20, 0)
    z_e, z_t, _ = case.inputs()
    z_e[3:30:5] *= magnitude
    z_t[:, 4] *= magnitude
    check(case._replace(beta_corr=0.0), [z_e, z_t, None])
    z_e, z_t, _ = case.inputs()
    z_e[:, 3] *= magnitude
    z_t[:, 4] *= magnitude
    check(case._replace(beta_mi=0.0), [z_e, z_t, None])


@pytest.mark.parametrize("magnitude", [2.0**-9, 2.0**7])
def test_extreme_rows_of_float16(magnitude):
    case = Case(F16, 40, 20, 0, beta_corr=0.0)
    z_e, z_t, _ = case.inputs()
    z_e[3:30:5] *= magnitude
    z_t[1:20:3] /= magnitude
    check(case, [z_e, z_t, None])


@pytest.mark.parametrize("d_s", [0, 21])
@pytest.mark.parametrize("d_e", [5, 140])
def test_widths_differ_without_correlation(d_e, d_s):
    check(Case(F32, 37, 50, d_s, beta_corr=0.0, d_e=d_e))


def test_strides():
    case = Case(F32, 37, 50, 21)
    z_e, z_t, z_s = case.inputs()
    check(case, [z_e.T.contiguous().T, torch.cat([z_t, z_t], 1)[:, :50], torch.cat([z_s, z_s])[::2][:37]])


def test_offsets_beyond_32_bits(tmp_path):
    """Rows so far apart that the last one begins beyond element 2³¹, in a sparse file, which shadow memory is not."""
    from itrd_kernels import itrd_loss

    stride = 2**30 + 64
    z_e, z_t, _ = Case(F16, 3, 5, 0).inputs()
    flat = torch.from_file(str(tmp_path / "rows"), shared=True, size=2 * stride + 64, dtype=F16)
    far = [flat[start:].as_strided(z.shape, (stride, 1)).copy_(z) for start, z in ((0, z_e), (32, z_t))]
    leaves = [[z.detach().requires_grad_() for z in zs] for zs in (far, (z_e, z_t))]
    totals = [itrd_loss(*zs, backend="triton").total for zs in leaves]
    grads = [torch.autograd.grad(total, zs) for total, zs in zip(totals, leaves, strict=True)]
    assert torch.equal(*totals)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_repeats_bit_for_bit_in_any_order_of_programs():
    case = Case(F32, 70, 40, 0)
    first, *others = (step(case, case.inputs(), seed=seed) for seed in range(3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("d_s", [0, 4])
def test_gradcheck(d_s):
    """In random directions: entry by entry takes minutes here, and is what the other backends' runs do."""
    from itrd_kernels import itrd_loss

    inputs = [None if z is None else z.requires_grad_() for z in Case(F64, 5, 3, d_s).inputs()]
    torch.autograd.gradcheck(lambda *zs: itrd_loss(*zs, backend="triton").total, inputs, fast_mode=True)


def test_bfloat16_without_the_sanitizer():
    """The interpreter's own bfloat16 is wrong; the backend must not be."""
    from itrd_kernels import itrd_loss

    z_e, z_t, z_s = Case(BF16, 37, 50, 21).inputs()
    got = itrd_loss(z_e, z_t, z_s, backend="triton")
    expected = itrd_loss(z_e, z_t, z_s, backend="reference")
    torch.testing.assert_close(torch.stack(got), torch.stack(expected), rtol=1e-5, atol=0)
    assert launch.widen_bfloat16
