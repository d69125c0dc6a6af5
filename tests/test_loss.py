"""The module and the combined function, over every backend."""

import copy

import pytest
import torch
from cases import DTYPES, assert_within_budget, features, gradients
from torch import nn

import itrd_kernels
from itrd_kernels import FusedITRDLoss
from itrd_kernels.autograd import CorrelationFunction, GramFunction, ITRDFunction
from itrd_kernels.dispatch import Settings
from itrd_kernels.functional import correlation_loss, itrd_loss, mutual_information_loss


@pytest.mark.parametrize(("d_s", "d_t"), [(12, 12), (7, 20)])
@pytest.mark.parametrize("log_mi", [False, True])
def test_module_is_the_weighted_sum_of_its_terms(backend, d_s, d_t, log_mi):
    criterion = FusedITRDLoss(d_s, d_t, 2.5, 0.75, 1.2, log_mi=log_mi, backend=backend).double()
    z_s, z_t = features(30, d_s, torch.float64, 1), features(30, d_t, torch.float64, 2)
    embedded = z_s @ criterion.embed.weight.T + criterion.embed.bias
    correlation = correlation_loss(embedded, z_t, 1.2, backend="reference")
    # L_mi reads the student's own features when the widths agree.
    gram = mutual_information_loss(z_s if d_s == d_t else embedded, z_t, log=log_mi, backend="reference")
    torch.testing.assert_close(criterion(z_s, z_t), 2.5 * correlation + 0.75 * gram)
    torch.testing.assert_close(criterion.terms(z_s, z_t), (correlation, gram))


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (3, 5)])
def test_module_gradcheck(backend, d_s, d_t):
    criterion = FusedITRDLoss(d_s, d_t, backend=backend).double()
    z_s, z_t = features(6, d_s, torch.float64, 1).requires_grad_(), features(6, d_t, torch.float64, 2).requires_grad_()
    parameters = {name: value.detach().requires_grad_() for name, value in criterion.named_parameters()}

    def loss(z_s, z_t, *values):
        held = copy.deepcopy(criterion)
        for name, value in zip(parameters, values, strict=True):
            module, _, leaf = name.rpartition(".")
            delattr(held.get_submodule(module), leaf)
            setattr(held.get_submodule(module), leaf, value)
        return held(z_s, z_t)

    assert torch.autograd.gradcheck(loss, (z_s, z_t, *parameters.values()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("raw", [False, True], ids=["z_e alone", "z_s too"])
@pytest.mark.parametrize(
    "upstream", [(1.0, None, None), (None, 2.0, None), (None, None, -3.0), (0.5, 1.0, 2.0)], ids=str
)
def test_every_output_is_differentiable(backend, dtype, raw, upstream):
    inputs = [features(33, 20, dtype, 1), features(33, 20, dtype, 2), features(33, 9, dtype, 3)]

    def run(backend, dtype):
        z_e, z_t, z_s = leaves = [z.to(dtype).detach().requires_grad_() for z in inputs]
        terms = itrd_loss(z_e, z_t, z_s if raw else None, alpha=1.2, backend=backend)
        torch.autograd.backward(
            [term for term, g in zip(terms, upstream, strict=True) if g is not None],
            [torch.full_like(terms.total, g) for g in upstream if g is not None],
        )
        return terms, [leaf.grad for leaf in leaves[: 3 if raw else 2]]

    terms, grads = run(backend, dtype)
    plain = torch.promote_types(dtype, torch.float32)
    rough_terms, rough = run("reference", plain)
    exact_terms, exact = run("reference", torch.float64)
    for ours, rough_term, exact_term in zip(terms, rough_terms, exact_terms, strict=True):
        assert_within_budget(ours, rough_term, exact_term, plain, size=4.0)
    for ours, rough_grad, exact_grad in zip(grads, rough, exact, strict=True):
        if exact_grad is None:
            # The reference leaves an input out of the graph of a term that it is no part of; ours gives it zeros.
            assert ours is None or not ours.any()
        else:
            assert_within_budget(ours, rough_grad, exact_grad, dtype)


def test_term_without_weight_is_not_computed(backend):
    z_e, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    terms = itrd_loss(z_e, z_t, beta_corr=0.0, backend=backend)
    assert terms.correlation.isnan()
    torch.testing.assert_close(terms.total, terms.mutual_information)
    with pytest.raises(RuntimeError, match="does not require grad"):
        terms.correlation.backward()
    terms = itrd_loss(z_e, z_t, beta_mi=0.0, backend=backend)
    assert terms.mutual_information.isnan()
    torch.testing.assert_close(terms.total, 2 * terms.correlation)
    # The Gram term alone takes inputs of different widths.
    assert itrd_loss(z_e[:, :4], z_t, beta_corr=0.0, backend=backend).total.isfinite()


def test_no_weight_at_all_is_a_connected_zero(backend):
    criterion = FusedITRDLoss(6, 6, beta_corr=0.0, beta_mi=0.0, backend=backend)
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    loss = criterion(z_s, z_t)
    loss.backward()
    assert loss == 0
    assert not z_s.grad.any()
    assert not criterion.embed.weight.grad.any()
    assert all(term.isfinite() for term in criterion.terms(z_s, z_t))


def test_second_derivatives(backend):
    z_s, z_t = features(5, 4, torch.float64, 1).requires_grad_(), features(5, 4, torch.float64, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda s, t: tuple(itrd_loss(s, t, backend=backend)), (z_s, z_t))


def test_gradients_only_where_wanted(backend):
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    criterion = FusedITRDLoss(6, 6, backend=backend)
    criterion(z_s, z_t).backward()
    assert z_s.grad is not None
    assert z_t.grad is None
    with torch.no_grad():
        assert not criterion(z_s, z_t).requires_grad
    with torch.inference_mode():
        assert criterion(z_s, z_t).isfinite()


def test_inputs_and_saved_tensors_stay_as_they_are(backend):
    z_s, z_t = features(20, 6, torch.float32, 1), features(20, 6, torch.float32, 2)
    before = z_s.clone(), z_t.clone()
    _, once = gradients(lambda s, t: itrd_loss(s, t, backend=backend).total, (z_s, z_t))
    _, twice = gradients(lambda s, t: itrd_loss(s, t, backend=backend).total, (z_s, z_t), backward_passes=2)
    assert torch.equal(z_s, before[0])
    assert torch.equal(z_t, before[1])
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_modifying_an_input_before_backward_is_refused(backend):
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    loss = itrd_loss(z_s * 1, z_t, backend=backend).total
    z_t.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_promotes_mixed_inputs(backend, dtype):
    criterion = FusedITRDLoss(6, 8, backend=backend)
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 8, torch.float32, 2)
    with torch.autocast("cpu", dtype=dtype):
        loss = criterion(z_s, z_t)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z_s.grad.dtype == torch.float32
    torch.testing.assert_close(loss, criterion(z_s, z_t), rtol=0.05, atol=0.05)


def test_per_sample_transforms_run_the_reference(backend):
    z_s, z_t = features(9, 5, torch.float64, 1), features(9, 5, torch.float64, 2)
    ours = torch.func.grad(lambda s: itrd_loss(s, z_t, backend=backend).total)(z_s)
    _, (expected, _) = gradients(lambda s, t: itrd_loss(s, t, backend=backend).total, (z_s, z_t))
    torch.testing.assert_close(ours, expected)
    batched = torch.vmap(lambda s: itrd_loss(s, z_t, backend=backend).total)(torch.stack([z_s, 2 * z_s]))
    assert batched.shape == (2,)


def test_functions_are_public(backend):
    z_s, z_t = features(20, 6, torch.float32, 1), features(20, 6, torch.float32, 2)
    settings = Settings.of(backend, z_s, z_t, None, 1.5, 2.0, 1.0, False)
    total, correlation, gram = ITRDFunction.apply(z_s, z_t, None, settings)
    torch.testing.assert_close(total, 2 * correlation + gram)
    alone = settings._replace(beta_corr=1.0, beta_mi=0.0), settings._replace(beta_corr=0.0, beta_mi=1.0)
    assert CorrelationFunction.apply(z_s, z_t, alone[0]) == correlation
    assert GramFunction.apply(z_s, z_t, alone[1]) == gram


@pytest.mark.parametrize("d_t", [6, 8])
def test_differentiable_gradient_is_the_gradient(backend, d_t):
    # One input of the operator is computed from another, or is the same tensor: no path may count twice.
    criterion = FusedITRDLoss(6, d_t, backend=backend).double()
    z_s, z_t = features(20, 6, torch.float64, 1).requires_grad_(), features(20, d_t, torch.float64, 2)
    losses = [lambda: criterion(z_s, z_t)]
    if d_t == 6:
        losses += [
            lambda: correlation_loss(z_s, z_s, backend=backend),
            lambda: mutual_information_loss(z_s, z_s, backend=backend),
            lambda: itrd_loss(z_s, z_t, z_s, backend=backend).total,
            lambda: itrd_loss(2 * z_s, z_s, z_s, backend=backend).total,
        ]
    for loss in losses:
        (plain,) = torch.autograd.grad(loss(), z_s)
        (differentiable,) = torch.autograd.grad(loss(), z_s, create_graph=True)
        torch.testing.assert_close(differentiable, plain)


def test_teacher_under_inference_mode(backend):
    with torch.inference_mode():
        z_t = features(20, 8, torch.float32, 2).clone()
    z_s = features(20, 6, torch.float32, 1).requires_grad_()
    criterion = FusedITRDLoss(6, 8, backend=backend)
    criterion(z_s, z_t).backward()
    assert z_s.grad.any()
    correlation_loss(z_s, z_t[:, :6], backend=backend).backward()
    mutual_information_loss(z_s, z_t, backend=backend).backward()


def test_forward_mode_runs_the_reference(backend):
    z_s, z_t = features(9, 5, torch.float64, 1), features(9, 5, torch.float64, 2)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z_s, torch.ones_like(z_s))
        tangent = torch.autograd.forward_ad.unpack_dual(itrd_loss(dual, z_t, backend=backend).total).tangent
    _, (grad_s, _) = gradients(lambda s, t: itrd_loss(s, t, backend=backend).total, (z_s, z_t))
    torch.testing.assert_close(tangent, grad_s.sum())


def test_custom_embedding_and_copies(backend):
    embed = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
    criterion = FusedITRDLoss(6, 8, embed=embed, backend=backend)
    z_s, z_t = features(20, 6, torch.float32, 1), features(20, 8, torch.float32, 2)
    assert {id(p) for p in embed.parameters()} == {id(p) for p in criterion.parameters()}
    loss = criterion(z_s, z_t)
    again = copy.deepcopy(criterion)
    again.load_state_dict(criterion.state_dict())
    torch.testing.assert_close(again(z_s, z_t), loss)
    plain = FusedITRDLoss(6, 6, embed=nn.Identity(), backend=backend)
    expected = itrd_loss(z_s, z_s.flip(0), alpha=1.5, backend=backend).total
    torch.testing.assert_close(plain(z_s, z_s.flip(0)), expected)


def test_repr_and_table():
    assert "alpha=1.5" in repr(FusedITRDLoss(6, 8))
    table = itrd_kernels.available_backends()
    assert set(table) == {"reference", "cpu", "triton", "cuda"}
    assert table["reference"] is None
