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
from itrd_kernels.formulas.product import product

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
        torch.func.jvp(lambda z: torch.func.jvp(lambda z: loss(z, z_t), (z,), (z_t,))[1], (z_s,), (tangent,))[1],
        torch.func.linearize(lambda z: loss(z, z_t), z_s)[1](z_t),
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
    if compiler == "eager" and backward_inside and not forward_inside:
        pytest.skip("the derivatives of such graphs are PyTorch's own, which follow autocast")
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


GRAPHS = {
    "of each sample": lambda gradient, z_s, z_t: torch.compile(torch.func.vmap(gradient), fullgraph=True)(
        torch.stack([z_s, 2 * z_s]), torch.stack([z_t, z_t])
    ),
    "second": lambda gradient, z_s, z_t: torch.compile(
        torch.func.jacfwd(gradient), fullgraph=True, backend="aot_eager"
    )(z_s, z_t),
}


@pytest.mark.parametrize("derivative", GRAPHS)
@pytest.mark.parametrize("inside", [False, True])
def test_so_do_compiled_transforms(inside, derivative):
    torch._dynamo.reset()
    gradient = torch.func.grad(partial(both, backend="reference"))
    z_s, z_t = features(12, 5, torch.float32, 1), features(12, 5, torch.float32, 2)
    exact = {
        "of each sample": lambda z: torch.stack([gradient(k * z, z_t.double()) for k in (1, 2)]),
        "second": lambda z: torch.func.jacrev(gradient)(z, z_t.double()),
    }[derivative](z_s.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=inside):
        found = GRAPHS[derivative](gradient, z_s, z_t)
    assert (found - exact).norm() <= FEW_ROUNDINGS * exact.norm()


@pytest.mark.parametrize("exported_inside", [False, True])
def test_so_do_exported_formulas(exported_inside):
    """Decomposed too, as other runtimes take them, and whatever autocast says when they are exported."""

    class Loss(torch.nn.Module):
        def forward(self, z_s, z_t):
            return both(z_s, z_t, "reference")

    z_s, z_t = features(12, 5, torch.float32, 1), features(12, 5, torch.float32, 2)
    exact = both(z_s.double(), z_t.double(), "reference")
    with torch.autocast("cpu", torch.bfloat16, enabled=exported_inside):
        exported = torch.export.export(Loss(), (z_s, z_t))
    with torch.autocast("cpu", torch.bfloat16):
        for program in (exported, exported.run_decompositions()):
            assert abs(program.module()(z_s, z_t) - exact) <= FEW_ROUNDINGS * abs(exact)


@pytest.mark.parametrize("orders", ["ff", "fr", "rf", "ffr", "frf", "rff", "frr"])
def test_derivatives_of_every_order_agree_in_both_modes(orders):
    z_s, z_t = features(4, 2, torch.float64, 1), features(4, 2, torch.float64, 2)
    found = exact = partial(gram, backend="auto")
    for mode in orders:
        found = {"f": torch.func.jacfwd, "r": torch.func.jacrev}[mode](found)
        exact = torch.func.jacrev(exact)
    torch.testing.assert_close(found(z_s, z_t), exact(z_s, z_t))


@pytest.mark.parametrize("transform", [torch.func.vjp, torch.func.linearize])
def test_derivatives_may_be_taken_under_autocast_alone(transform):
    loss = partial(gram, backend="reference")
    z_s, z_t = features(12, 5, torch.float32, 1), features(12, 5, torch.float32, 2)
    direction = torch.ones_like(z_s) if transform is torch.func.linearize else torch.ones(())
    _, derivative = transform(lambda z: loss(z, z_t), z_s)
    _, exact = transform(lambda z: loss(z, z_t.double()), z_s.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = derivative(direction)
    exact = exact(direction.double())
    for ours, theirs in zip(found, exact, strict=True) if isinstance(found, tuple) else [(found, exact)]:
        assert (ours - theirs).norm() <= FEW_ROUNDINGS * theirs.norm()


def test_second_derivatives_of_a_compiled_loss():
    torch._dynamo.reset()
    compiled = torch.compile(partial(gram, backend="reference"), fullgraph=True, backend="eager")
    z_s, z_t = features(12, 5, torch.float64, 1), features(12, 5, torch.float64, 2)
    torch.testing.assert_close(
        second_derivative(compiled, z_s, z_t), second_derivative(partial(gram, backend="auto"), z_s, z_t)
    )


def test_derivatives_of_the_product():
    a, b = (features(n, 4, torch.float64, n).requires_grad_() for n in (5, 3))
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(product, (a, b), check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(lambda a: product(a, a), a, check_forward_ad=True)
