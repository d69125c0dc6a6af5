"""The correlation loss of every backend against the reference in float64."""

import naive
import pytest
import torch
from cases import ALPHAS, DTYPES, FEATURES, LAYOUTS, NEEDS, SAMPLES, assert_within_budget, features, gradients, pairwise

from itrd_kernels.functional import correlation_loss


def check(backend, z_s, z_t, alpha=1.5, **options):
    """Loss and gradients of a backend within the budget."""
    dtype = z_s.dtype
    plain = torch.promote_types(dtype, torch.float32)
    loss, grads = gradients(lambda s, t: correlation_loss(s, t, alpha, backend=backend), (z_s, z_t), **options)
    results = [
        gradients(
            lambda s, t: correlation_loss(s, t, alpha, backend="reference"), (z_s.to(kind), z_t.to(kind)), **options
        )
        for kind in (plain, torch.float64)
    ]
    assert loss.dtype == plain
    s, t = z_s.double().numpy(), z_t.double().numpy()
    # One entry e_j is known to a few roundings of 1, and the loss moves by its share of 2α/ln 2 · Δe/e.
    assert_within_budget(loss, results[0][0], results[1][0], plain, size=naive.correlation_size(s, t, alpha))
    needs = options.get("needs", "both")
    sizes = {"student": [(s, t)], "teacher": [(t, s)], "both": [(s, t), (t, s)]}[needs]
    scale = abs(options.get("upstream", 1.0)) * options.get("backward_passes", 1)
    for grad, rough, exact, pair in zip(grads, results[0][1], results[1][1], sizes, strict=True):
        assert grad.dtype == dtype
        assert_within_budget(grad, rough, exact, dtype, scale * naive.correlation_gradient_size(*pair, alpha))


@pairwise(dtype=DTYPES, n=SAMPLES, d=FEATURES, alpha=ALPHAS, layout=LAYOUTS, needs=NEEDS, upstream=(1.0, -2.5))
def test_parity(backend, dtype, n, d, alpha, layout, needs, upstream):
    z_s, z_t = features(n, d, dtype, 1, layout), features(n, d, dtype, 2)
    check(backend, z_s, z_t, alpha, needs=needs, upstream=upstream)


def test_retained_graph_can_be_walked_twice(backend):
    check(backend, features(33, 20, torch.float32, 1), features(33, 20, torch.float32, 2), backward_passes=2)


def test_gradcheck(backend):
    z_s, z_t = (features(7, 5, torch.float64, seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(lambda s, t: correlation_loss(s, t, 0.8, backend=backend), (z_s, z_t))


def test_second_derivatives(backend):
    z_s, z_t = (features(5, 4, torch.float64, seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradgradcheck(lambda s, t: correlation_loss(s, t, backend=backend), (z_s, z_t))


def test_large_mean(backend):
    z_s, z_t = features(300, 40, torch.float64, 1), features(300, 40, torch.float64, 2)
    z_s[:, ::3] += 1e4
    check(backend, z_s.float(), z_t.float())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("where", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_dead_column(backend, value, where, dtype):
    z_s, z_t = features(70, 19, dtype, 1), features(70, 19, dtype, 2)
    for z, who in ((z_s, "student"), (z_t, "teacher")):
        if where in (who, "both"):
            z[:, 3] = value
            z[:, 17] = value
    check(backend, z_s, z_t)
    loss, (grad_s, grad_t) = gradients(lambda s, t: correlation_loss(s, t, backend=backend), (z_s, z_t))
    # v = 0 and |e| = 1 in a dead column: the loss is that of the other columns with two ones added to the sum.
    alive = [j for j in range(19) if j not in (3, 17)]
    rest = naive.correlation(z_s[:, alive].double().numpy(), z_t[:, alive].double().numpy(), 1.5)
    expected = torch.tensor(2.0**rest + 2, dtype=torch.float64).log2()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5 if dtype != torch.float64 else 1e-12, atol=0)
    assert not grad_s[:, [3, 17]].any()
    assert not grad_t[:, [3, 17]].any()


def test_identical_student_and_teacher(backend):
    n = 64
    z = features(n, 30, torch.float64)
    # v = (n − 1)/n in every column
    expected = torch.tensor(30 * (1 / n) ** 3, dtype=torch.float64).log2()
    torch.testing.assert_close(correlation_loss(z, z, 1.5, backend=backend), expected, rtol=1e-10, atol=0)
    check(backend, z.float(), z.float())


def test_large_alpha_near_perfect_correlation(backend):
    z_t = features(256, 16, torch.float64, 2)
    z_s = z_t + 1e-3 * features(256, 16, torch.float64, 1)
    check(backend, z_s.float(), z_t.float(), 10.0)


@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e-25])
def test_extreme_scales(backend, scale):
    z_s, z_t = features(40, 9, torch.float32, 1), features(40, 9, torch.float32, 2)
    z_s[:, 2:5] *= scale
    z_t[:, 4:7] *= scale
    loss, (grad_s, grad_t) = gradients(lambda s, t: correlation_loss(s, t, backend=backend), (z_s, z_t))
    exact, (exact_s, exact_t) = gradients(
        lambda s, t: correlation_loss(s, t, backend="reference"), (z_s.double(), z_t.double())
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)
    # Columns differ by forty orders of magnitude, so each is judged by itself.
    for grad, expected in ((grad_s, exact_s), (grad_t, exact_t)):
        assert ((grad.double() - expected).norm(dim=0) <= 1e-5 * expected.norm(dim=0)).all()


@pytest.mark.parametrize("n", [65, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rows_that_outweigh_all_others(backend, dtype, n):
    """By as much as a column's spread allows, the first row among them, which columns are shifted by."""
    if backend == "triton" and n > 65:
        pytest.skip("the interpreter adds equal rows one after another, and rounds alike; a GPU adds them in pairs")
    for seed in range(3):
        z_s, z_t = features(n, 33, dtype, 2 * seed), features(n, 33, dtype, 2 * seed + 1)
        for z in (z_s, z_t):
            z[:: n // 5] *= 1e25
        check(backend, z_s, z_t)


def test_float16_near_its_limits(backend):
    z_s, z_t = features(40, 9, torch.float64, 1), features(40, 9, torch.float64, 2)
    z_s = (z_s / z_s.abs().max() * 65504).half()
    z_t = (z_t / z_t.abs().max() * 1e-4).half()
    check(backend, z_s, z_t)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dead_partner", [False, True])
@pytest.mark.parametrize("whole_column", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_values_surface(backend, dtype, bad, dead_partner, whole_column):
    z_s, z_t = features(40, 9, dtype, 1), features(40, 9, dtype, 2)
    z_s[slice(None) if whole_column else 11, 4] = bad
    if dead_partner:
        z_t[:, 4] = 0
    assert not correlation_loss(z_s, z_t, backend=backend).isfinite()


@pytest.mark.parametrize(("dtype", "n"), [(torch.float32, 4100), (torch.bfloat16, 8200)])
def test_gradients_that_leave_the_caches(backend, dtype, n):
    if backend != "cpu":
        pytest.skip("32 MiB of gradient take minutes where kernels are emulated")
    check(backend, features(n, 2048, dtype, 1), features(n, 2048, dtype, 2), needs="student")


def test_results_repeat_bit_for_bit(backend):
    z_s, z_t = features(600, 70, torch.float32, 1), features(600, 70, torch.float32, 2)
    first, again = (gradients(lambda s, t: correlation_loss(s, t, backend=backend), (z_s, z_t)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
