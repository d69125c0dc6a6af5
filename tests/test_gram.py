"""The mutual-information loss of every backend against the reference in float64."""

import naive
import numpy as np
import pytest
import torch
from cases import DTYPES, FEATURES, LAYOUTS, NEEDS, SAMPLES, assert_within_budget, features, gradients, pairwise

from itrd_kernels.functional import mutual_information_loss


def check(backend, z_s, z_t, log=False, **options):
    """Loss and gradients of a backend within the budget."""
    dtype = z_s.dtype
    plain = torch.promote_types(dtype, torch.float32)
    loss, grads = gradients(lambda s, t: mutual_information_loss(s, t, log=log, backend=backend), (z_s, z_t), **options)
    results = [
        gradients(
            lambda s, t: mutual_information_loss(s, t, log=log, backend="reference"),
            (z_s.to(kind), z_t.to(kind)),
            **options,
        )
        for kind in (plain, torch.float64)
    ]
    assert loss.dtype == plain
    # The loss is the difference of two potentials of order one.
    assert_within_budget(loss, results[0][0], results[1][0], plain, size=1.0)
    needs = options.get("needs", "both")
    s, t = z_s.double().numpy(), z_t.double().numpy()
    scale = abs(options.get("upstream", 1.0)) * options.get("backward_passes", 1)
    sides = {"student": [False], "teacher": [True], "both": [False, True]}[needs]
    for grad, rough, exact, of_teacher in zip(grads, results[0][1], results[1][1], sides, strict=True):
        assert grad.dtype == dtype
        assert_within_budget(grad, rough, exact, dtype, scale * naive.gram_gradient_size(s, t, of_teacher, log))


@pairwise(
    dtype=DTYPES,
    n=SAMPLES,
    d_s=FEATURES,
    d_t=FEATURES,
    log=(False, True),
    layout=LAYOUTS,
    needs=NEEDS,
    upstream=(1.0, -2.5),
)
def test_parity(backend, dtype, n, d_s, d_t, log, layout, needs, upstream):
    z_s, z_t = features(n, d_s, dtype, 1, layout), features(n, d_t, dtype, 2)
    check(backend, z_s, z_t, log, needs=needs, upstream=upstream)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kernel", [(0.0, 1), (1.0, 2), (0.5, 3)])
def test_polynomial_kernel(backend, kernel, log):
    z_s, z_t = features(20, 5, torch.float64, 1), features(20, 9, torch.float64, 2)
    loss = mutual_information_loss(z_s, z_t, log=log, kernel=kernel, backend=backend)
    assert loss.item() == pytest.approx(naive.polynomial_gram(z_s.numpy(), z_t.numpy(), *kernel, log), rel=1e-11)
    if kernel == (0.0, 1):
        expected = mutual_information_loss(z_s, z_t, log=log, backend=backend)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (2, "kernel must be a pair"),
        ((1.0,), "kernel must be a pair"),
        ((-1.0, 2), "c of kernel must be"),
        ((1.0, 4), "p of kernel must be 1, 2 or 3, got 4"),
        ((1.0, 2.5), "p of kernel must be an int"),
    ],
)
def test_kernels_that_are_none(kernel, message):
    z = features(4, 3, torch.float32)
    with pytest.raises((TypeError, ValueError), match=message):
        mutual_information_loss(z, z, kernel=kernel)


@pytest.mark.parametrize("n", [1100, 1500])
def test_many_rows(backend, n):
    """Several blocks of W of the CPU kernels, the larger tiles of the CUDA kernels."""
    if backend == "triton":
        pytest.skip("takes minutes in Triton's interpreter, and no other path than fewer rows")
    check(backend, features(n, 24, torch.float32, 1), features(n, 9, torch.float32, 2))


@pytest.mark.parametrize(("n", "d"), [(4, 500_000), (16, 100_352)])
def test_long_rows_keep_their_digits(backend, n, d):
    if backend != "cpu":
        pytest.skip("so many features take minutes where kernels are emulated")
    # Features of one sign, as after a ReLU: nothing cancels in their long sums.
    check(backend, features(n, d, torch.float32, 1).relu(), features(n, 40, torch.float32, 2))


def test_many_rows_keep_their_digits(backend):
    """Sums over many rows in one chain of float32 would lose a digit."""
    # Triton's interpreter takes minutes for more rows.
    n = 1024 if backend == "triton" else 4096
    z_s, z_t = features(n, 8, torch.float32, 1), features(n, 8, torch.float32, 2)
    (_, found), (_, exact) = (
        gradients(lambda s, t, name=name: mutual_information_loss(s, t, backend=name), inputs)
        for name, inputs in ((backend, (z_s, z_t)), ("reference", (z_s.double(), z_t.double())))
    )
    for grad, expected in zip(found, exact, strict=True):
        assert (grad.double() - expected).norm() <= 6e-7 * expected.norm()


def shaped(kind, n, d):
    """Features that are hard on fixed-point numbers: rows, of z or of W, whose entries differ in size."""
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    if kind == "relu":
        z = z.relu()
    if kind == "sparse":
        z = (z - 1.3).relu()
    if kind == "heavy tails":
        z = z**3
    if kind == "one dominates":
        z[torch.arange(n), torch.arange(n) * 7 % d] *= 40
    if kind == "pairs":  # two views of each sample
        z[n // 2 :] = z[: n - n // 2] + 0.1 * z[n // 2 :]
    return z


@pytest.mark.parametrize(("n", "d"), [(130, 64), (253, 1040), (257, 512), (1100, 256)])
@pytest.mark.parametrize("kind", ["normal", "sparse", "heavy tails", "one dominates", "pairs"])
def test_float32_keeps_its_digits(backend, kind, n, d):
    if backend != "cpu" and n > 130:
        pytest.skip("takes minutes where kernels are emulated, and no other path than fewer rows")
    z_s, z_t = shaped(kind, n, d), shaped("normal", n, d).roll(1, 0)
    loss, rough, exact = (
        gradients(lambda s, t, name=name: mutual_information_loss(s, t, backend=name), inputs, needs="student")
        for name, inputs in (
            (backend, (z_s, z_t)),
            ("reference", (z_s, z_t)),
            ("reference", (z_s.double(), z_t.double())),
        )
    )
    assert_within_budget(loss[1][0], rough[1][0], exact[1][0], torch.float32)


@pytest.mark.parametrize(("n", "d"), [(130, 77), (257, 512), (1100, 256)])
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy tails", "one dominates", "pairs"])
def test_bfloat16_loses_little_beside_its_rounding(backend, kind, n, d):
    """Products of bfloat16 are exact; what may be rounded before the gradient itself is W, once."""
    if backend != "cpu" and n > 130:
        pytest.skip("takes minutes where kernels are emulated, and no other path than fewer rows")
    z_s, z_t = shaped(kind, n, d).bfloat16(), shaped("normal", n, d).roll(1, 0).bfloat16()
    (_, (grad,)), (_, (exact,)) = (
        gradients(lambda s, t, name=name: mutual_information_loss(s, t, backend=name), inputs, needs="student")
        for name, inputs in ((backend, (z_s, z_t)), ("reference", (z_s.double(), z_t.double())))
    )
    rounding = (exact.bfloat16().double() - exact).norm()
    assert (grad.double() - exact).norm() <= 1.7 * rounding


def test_retained_graph_can_be_walked_twice(backend):
    check(backend, features(33, 20, torch.float32, 1), features(33, 20, torch.float32, 2), backward_passes=2)


@pytest.mark.parametrize("log", [False, True])
def test_gradcheck(backend, log):
    z_s, z_t = features(7, 5, torch.float64, 1).requires_grad_(), features(7, 3, torch.float64, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: mutual_information_loss(s, t, log=log, backend=backend), (z_s, z_t))


def test_second_derivatives(backend):
    z_s, z_t = features(5, 4, torch.float64, 1).requires_grad_(), features(5, 3, torch.float64, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda s, t: mutual_information_loss(s, t, backend=backend), (z_s, z_t))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("where", ["student", "teacher", "both", "all of the student", "all", "never together"])
@pytest.mark.parametrize(("d_s", "d_t"), [(9, 12), (208, 192)])
def test_zero_rows(backend, where, log, d_s, d_t):
    z_s, z_t = features(40, d_s, torch.float32, 1), features(40, d_t, torch.float32, 2)
    if where in ("student", "both"):
        z_s[[0, 33]] = 0
    if where in ("teacher", "both"):
        z_t[[5, 33]] = 0
    if where in ("all of the student", "all"):
        z_s[:] = 0
    if where == "all":
        z_t[:] = 0
    if where == "never together":
        z_s[:20] = 0
        z_t[20:] = 0
    check(backend, z_s, z_t, log)
    loss, (grad_s, grad_t) = gradients(lambda s, t: mutual_information_loss(s, t, log=log, backend=backend), (z_s, z_t))
    assert loss.isfinite()
    assert not grad_s[(z_s == 0).all(1)].any()
    assert not grad_t[(z_t == 0).all(1)].any()
    if where in ("student", "teacher", "both") and not log:
        # ‖G_s‖² counts all rows of the student that are not zero, ‖G_st‖² those in which neither is.
        s, t = z_s.double().numpy(), z_t.double().numpy()
        alive_s, alive = (s != 0).any(1), (s != 0).any(1) & (t != 0).any(1)
        potential_s = naive.potential(s[alive_s], np.ones((alive_s.sum(), 1)))
        expected = potential_s - naive.potential(s[alive], t[alive])
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_identical_directions(backend):
    z = features(1, 8, torch.float64).expand(30, 8) * torch.rand(30, 1, dtype=torch.float64).add(0.5)
    # All cosines are 1: both potentials are 1 and nothing can improve.
    loss, grads = gradients(lambda s, t: mutual_information_loss(s, t, backend=backend), (z, z.clone()))
    torch.testing.assert_close(loss, torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert all(grad.norm() < 1e-12 for grad in grads)


@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e-38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_s", "d_t"), [(9, 12), (208, 192)])
def test_extreme_scales(backend, dtype, d_s, d_t, scale):
    z_s, z_t = features(40, d_s, dtype, 1), features(40, d_t, dtype, 2)
    z_s[3:20] *= scale
    z_t[10:30] *= scale
    loss, grads = gradients(lambda s, t: mutual_information_loss(s, t, backend=backend), (z_s, z_t))
    exact, exact_grads = gradients(
        lambda s, t: mutual_information_loss(s, t, backend="reference"), (z_s.double(), z_t.double())
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-7)
    tolerance = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    for grad, expected in zip(grads, exact_grads, strict=True):
        representable = expected.abs().amax(1) < 1e38
        error = (grad.double() - expected).norm(dim=1)[representable]
        assert (error <= tolerance * expected.norm(dim=1)[representable]).all()


def test_float16_near_its_limits(backend):
    z_s, z_t = features(40, 9, torch.float64, 1), features(40, 9, torch.float64, 2)
    z_s = (z_s / z_s.abs().max() * 65504).half()
    z_t = (z_t / z_t.abs().max() * 1e-4).half()
    check(backend, z_s, z_t)


def test_small_half_precision_gradient_survives_the_scaler(backend):
    # At n = 257 most entries of the unscaled gradient vanish in float16; scaled by GradScaler's 2^16 they are there.
    z_s, z_t = features(257, 128, torch.float16, 1), features(257, 128, torch.float16, 2)
    check(backend, z_s, z_t, upstream=2.0**16)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("rest_is_zero", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("d_s", "d_t", "row"), [(9, 12, 11), (208, 192, 39)])
def test_bad_values_surface(backend, dtype, d_s, d_t, row, bad, who, rest_is_zero):
    z_s, z_t = features(40, d_s, dtype, 1), features(40, d_t, dtype, 2)
    z = z_s if who == "student" else z_t
    if rest_is_zero:
        z[:] = 0
    z[row, 4] = bad
    assert not mutual_information_loss(z_s, z_t, backend=backend).isfinite()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("where", ["every row", "the only row that is not zero"])
def test_no_row_without_bad_values(backend, where, log, who, bad):
    z_s, z_t = features(5, 3, torch.float32, 1), features(5, 2, torch.float32, 2)
    z = z_s if who == "student" else z_t
    if where == "every row":
        z[:, 1] = bad
    else:
        z[:] = 0
        z[2, 1] = bad
    assert not mutual_information_loss(z_s, z_t, log=log, backend=backend).isfinite()


def test_results_repeat_bit_for_bit(backend):
    z_s, z_t = features(200, 70, torch.float32, 1), features(200, 70, torch.float32, 2)
    first, again = (
        gradients(lambda s, t: mutual_information_loss(s, t, backend=backend), (z_s, z_t)) for _ in range(2)
    )
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
