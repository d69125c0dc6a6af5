"""The reference itself: hand-computed cases, and the formulas written out in NumPy."""

import naive
import numpy as np
import pytest
import torch
from cases import features

from itrd_kernels.formulas.correlation import correlation
from itrd_kernels.formulas.mutual_information import mutual_information
from itrd_kernels.functional import correlation_loss, itrd_loss, mutual_information_loss


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_correlation_by_hand():
    # ŝ = (−1, 0, 1), t̂ = (−1, 0, 1) and (1, 0, −1): v = (2/3, −2/3), so e = (1/3, 5/3) and Σ|e|² = 26/9 at α = 1.
    z_s, z_t = tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), tensor([[0.0, 9.0], [4.0, 5.0], [8.0, 1.0]])
    torch.testing.assert_close(correlation(z_s, z_t, 1.0), tensor(26 / 9).log2())


def test_gram_by_hand():
    # Rows at 0°, 90° and 0°: G_s has five ones. Teacher at 0°, 0°, 60°: G_t = 1, and 1/2 between the first two and the
    # third. ‖G_s‖² = 5/9; G_st keeps the diagonal and 1/2 at (0, 2): ‖G_st‖² = (3 + 2/4)/9.
    z_s = tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    z_t = tensor([[1.0, 0.0], [7.0, 0.0], [0.5, 3**0.5 / 2]])
    torch.testing.assert_close(mutual_information(z_s, z_t), tensor(1.5 / 9))
    torch.testing.assert_close(mutual_information(z_s, z_t, log=True), tensor(5 / 3.5).log2())


@pytest.mark.parametrize(("n", "d_s", "d_t"), [(3, 4, 4), (17, 5, 5), (40, 31, 12)])
def test_against_numpy(n, d_s, d_t):
    z_s, z_t = features(n, d_s, torch.float64, 1), features(n, d_t, torch.float64, 2)
    s, t = z_s.numpy(), z_t.numpy()
    for log in (False, True):
        assert mutual_information(z_s, z_t, log).item() == pytest.approx(naive.gram(s, t, log), rel=1e-10, abs=1e-12)
    if d_s == d_t:
        for alpha in (0.3, 1.01, 1.5, 10.0):
            expected = naive.correlation(s, t, alpha)
            assert correlation(z_s, z_t, alpha).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("loss", ["correlation", "gram", "gram with logarithms"])
def test_gradient_against_differences(loss):
    z_s, z_t = features(6, 4, torch.float64, 1), features(6, 4, torch.float64, 2)
    plain, own = {
        "correlation": (lambda s, t: naive.correlation(s, t, 1.3), lambda s, t: correlation(s, t, 1.3)),
        "gram": (naive.gram, mutual_information),
        "gram with logarithms": (lambda s, t: naive.gram(s, t, True), lambda s, t: mutual_information(s, t, True)),
    }[loss]
    leaves = z_s.clone().requires_grad_(), z_t.clone().requires_grad_()
    own(*leaves).backward()
    s, t = z_s.numpy(), z_t.numpy()
    np.testing.assert_allclose(leaves[0].grad, naive.gradient(lambda z: plain(z, t), s), atol=1e-7)
    np.testing.assert_allclose(leaves[1].grad, naive.gradient(lambda z: plain(s, z), t), atol=1e-7)


@pytest.mark.parametrize("function", [correlation_loss, mutual_information_loss, itrd_loss])
def test_twice_differentiable(function):
    z_s, z_t = features(5, 4, torch.float64, 1).requires_grad_(), features(5, 4, torch.float64, 2).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda s, t: function(s, t, backend="reference"), (z_s, z_t))
