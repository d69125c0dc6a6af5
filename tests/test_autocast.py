"""The formulas under autocast: float32 inputs are computed in float32, in every order of derivative and transform.

A backend's own kernels are not touched by autocast. The reference runs the formulas, and so do second derivatives,
torch.func and forward-mode derivatives on every backend.
"""

from functools import partial

import pytest
import torch
from cases import features
from torch.autograd import forward_ad

from itrd_kernels import itrd_loss, mutual_information_loss
from itrd_kernels.backends.product import product

FEW_ROUNDINGS = 2e-5


def gram(z_s, z_t, backend):
    return mutual_information_loss(z_s, z_t, backend=backend)


def both(z_s, z_t, backend):
    return itrd_loss(z_s, z_t, backend=backend).total


def value_and_gradient(loss, z_s, z_t):
    z_s = z_s.detach().requires_grad_()
    total = loss(z_s, z_t)
    return total.detach(), *torch.autograd.grad(total, z_s)


def second_derivative(loss, z_s, z_t):
    z_s = z_s.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z_s, z_t), z_s, create_graph=True)
    return gradient.detach(), *torch.autograd.grad(gradient.square().sum(), z_s)


def transforms(loss, z_s, z_t):
    tangent = torch.ones_like(z_s)
    gradient = torch.func.grad(loss)
    return (
        gradient(z_s, z_t),
        torch.func.jvp(lambda z: loss(z, z_t), (z_s,), (tangent,))[1],
        torch.func.jvp(lambda z: gradient(z, z_t), (z_s,), (tangent,))[1],
        torch.func.vmap(gradient)(torch.stack([z_s, 2 * z_s]), torch.stack([z_t, z_t])),
    )


def forward_mode(loss, z_s, z_t):
    with forward_ad.dual_level():
        total = loss(forward_ad.make_dual(z_s, torch.ones_like(z_s)), z_t)
        return (forward_ad.unpack_dual(total).tangent,)


@pytest.mark.parametrize("results", [value_and_gradient, second_derivative, transforms, forward_mode])
@pytest.mark.parametrize("loss", [gram, both])
@pytest.mark.parametrize("name", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_formulas_run_outside_autocast(dtype, name, loss, results):
    loss = partial(loss, backend=name)
    z_s, z_t = features(40, 16, torch.float32, 1), features(40, 16, torch.float32, 2)
    expected = results(loss, z_s.double(), z_t.double())
    with torch.autocast("cpu", dtype):
        found = results(loss, z_s, z_t)
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).norm() <= FEW_ROUNDINGS * exact.norm()


@pytest.mark.parametrize("backward_inside", [True, False])
@pytest.mark.parametrize("forward_inside", [True, False])
@pytest.mark.parametrize("compiler", [None, "eager", "inductor"])
def test_so_do_forward_and_backward_passes_apart(compiler, forward_inside, backward_inside):
    torch._dynamo.reset()
    loss = partial(both, backend="reference")
    z_s, z_t = features(40, 16, torch.float32, 1), features(40, 16, torch.float32, 2)
    expected = value_and_gradient(loss, z_s.double(), z_t.double())
    compiled = torch.compile(loss, fullgraph=True, backend=compiler) if compiler else loss
    z_s.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=forward_inside):
        total = compiled(z_s, z_t)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward_inside):
        (gradient,) = torch.autograd.grad(total, z_s)
    for ours, exact in zip((total, gradient), expected, strict=True):
        assert (ours - exact).norm() <= FEW_ROUNDINGS * exact.norm()


def test_derivatives_of_the_product():
    a, b = (features(n, 4, torch.float64, n).requires_grad_() for n in (5, 3))
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(product, (a, b), check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(lambda a: product(a, a), a, check_forward_ad=True)
