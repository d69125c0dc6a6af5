"""PKT against its definition, and what makes it more than a sum over pairs."""

import naive
import numpy as np
import pytest
import torch
from cases import features, gradients

from itrd_kernels import backends, dispatch, pkt_loss
from itrd_kernels.pair_losses import pkt

BACKENDS = ("reference", *backends.WITH_OPERATORS)


@pytest.mark.parametrize("eps", [1e-7, 1e-3])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(2, 3, 3), (20, 5, 9), (45, 33, 12)])
def test_definition(backend, n, d_s, d_t, eps):
    z_s, z_t = features(n, d_s, torch.float64, 1), features(n, d_t, torch.float64, 2)
    expected = naive.pkt(z_s.numpy(), z_t.numpy(), eps)
    assert pkt_loss(z_s, z_t, eps=eps, backend=backend).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("eps", [1e-7, 0.1])
def test_gradient_by_differences_of_the_definition(backend, eps):
    z_s, z_t = features(6, 4, torch.float64, 1), features(6, 3, torch.float64, 2)
    _, (grad_s, grad_t) = gradients(lambda s, t: pkt_loss(s, t, eps=eps, backend=backend), (z_s, z_t))
    s, t = z_s.numpy(), z_t.numpy()
    assert grad_s.numpy() == pytest.approx(naive.gradient(lambda x: naive.pkt(x, t, eps), s), abs=1e-8)
    assert grad_t.numpy() == pytest.approx(naive.gradient(lambda x: naive.pkt(s, x, eps), t), abs=1e-8)


@pytest.mark.parametrize("n", [64, 512])
def test_a_student_one_percent_from_its_teacher_keeps_its_digits(backend, n):
    """Summed as it is defined in float32, the loss would be off by a thousandth of itself."""
    if n > 64 and backend in ("triton", "cuda"):
        pytest.skip("takes a minute where kernels are emulated, and no other path than fewer rows")
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(n, 64, generator=generator)
    z_s = z_t + 0.01 * torch.randn(n, 64, generator=generator)
    exact = pkt_loss(z_s.double(), z_t.double(), backend="reference")
    error = (pkt_loss(z_s, z_t, backend=backend).double() - exact).abs() / exact
    # Errors of single cosines average out over the pairs.
    assert error <= 5e-7 * 512 / n
    with np.errstate(all="ignore"):
        plain = naive.pkt(z_s.numpy(), z_t.numpy(), np.float32(1e-7))
    assert abs(plain - exact.item()) > 20 * error * exact.item()


def test_the_statistics_that_a_backend_forms_are_those_of_the_rows(backend):
    if backend == "reference" or not dispatch.forms_statistics(backend):
        pytest.skip("it is given statistics")
    z = features(50, 20, torch.float64, 1), features(50, 7, torch.float64, 2)
    z[0][[3, 7]] = z[1][[7]] = 0
    keep = torch.arange(50) % 5 != 2
    k = int(keep.sum())
    parameters = (1 / k**3, k * 1e-7)
    s, t = (pkt.UnitRows.of(x[keep]) for x in z)
    rows = torch.zeros(2, 50, dtype=torch.float64)
    rows[:, keep] = torch.stack([s.statistic(), t.statistic()])
    formed, given = (
        dispatch.gram(backend, *z, "pkt", parameters, keep=keep, statistics=statistics, want_s=True, want_t=True)
        for statistics in (None, rows)
    )
    torch.testing.assert_close(formed.sums, given.sums, rtol=1e-13, atol=0)
    kappa = (rows * given.row_sums / k**4)[:, keep]
    torch.testing.assert_close(formed.dgram_s[keep], s.repaired(given.dgram_s[keep], kappa[0]), rtol=1e-11, atol=1e-18)
    torch.testing.assert_close(formed.dgram_t[keep], t.repaired(given.dgram_t[keep], kappa[1]), rtol=1e-11, atol=1e-18)
    assert not formed.dgram_s[~keep].any()


def test_the_gradient_needs_its_rank_one_part(monkeypatch):
    """A planted bug: without what the row sums add, which the student feels by ε, differences tell."""
    monkeypatch.setattr(pkt.UnitRows, "repaired", lambda rows, dgram, kappa: dgram)
    monkeypatch.setattr(dispatch, "forms_statistics", lambda backend: False)
    z_s, z_t = features(6, 4, torch.float64, 1), features(6, 3, torch.float64, 2)
    _, (grad_s, _) = gradients(lambda s, t: pkt_loss(s, t, eps=0.1), (z_s, z_t))
    expected = naive.gradient(lambda x: naive.pkt(x, z_t.numpy(), 0.1), z_s.numpy())
    assert np.abs(grad_s.numpy() - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("eps", [0, -1e-7, float("nan"), "small"])
def test_eps_must_be_positive(eps):
    z = features(4, 3, torch.float32)
    with pytest.raises((TypeError, ValueError), match="eps must be"):
        pkt_loss(z, z, eps=eps)
