"""The total together with its terms, `criterion(z_s, z_t, return_terms=True)`, over every backend."""

import pytest
import torch
from cases import features
from torch.utils._python_dispatch import TorchDispatchMode

from itrd_kernels import FusedITRDLoss, ITRDTerms, correlation_loss, itrd_loss, mutual_information_loss

WIDTHS = pytest.mark.parametrize(("d_s", "d_t"), [(12, 12), (7, 20)])
BETAS = pytest.mark.parametrize("betas", [(2.5, 0.75), (2.5, 0.0), (0.0, 0.75), (0.0, 0.0)], ids=str)


def weighted(d_s, d_t, betas, **options):
    return FusedITRDLoss(d_s, d_t, beta_corr=betas[0], beta_mi=betas[1], **options)


def inputs(d_s, d_t, dtype=torch.float64):
    z_s, z_t = features(30, d_s, dtype, 1), features(30, d_t, dtype, 2)
    return z_s.requires_grad_(), z_t.requires_grad_()


def gradients_of(scalar, criterion, z_s, z_t):
    leaves = [z_s, z_t, *criterion.parameters()]
    return torch.autograd.grad(scalar, leaves, retain_graph=True, materialize_grads=True)


def separate_losses(criterion, z_s, z_t):
    """The two terms by functions of their own."""
    z_e = criterion.embed(z_s)
    raw = z_s if criterion.student_dim == criterion.teacher_dim else z_e
    correlation = correlation_loss(z_e, z_t, criterion.alpha, backend=criterion.backend)
    return correlation, mutual_information_loss(raw, z_t, log=criterion.log_mi, backend=criterion.backend)


class Counting(TorchDispatchMode):
    """How often each operator of the library ran."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace.startswith("itrd_"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@WIDTHS
@BETAS
@pytest.mark.parametrize("log_mi", [False, True])
def test_total_is_weighted_and_its_terms_are_not(backend, d_s, d_t, betas, log_mi):
    criterion = weighted(d_s, d_t, betas, alpha=1.2, log_mi=log_mi, backend=backend).double()
    z_s, z_t = inputs(d_s, d_t)
    terms = criterion(z_s, z_t, return_terms=True)
    assert type(terms) is ITRDTerms
    assert torch.equal(terms.total, criterion(z_s, z_t))
    for term, beta, expected in zip(terms[1:], betas, separate_losses(criterion, z_s, z_t), strict=True):
        if beta:
            torch.testing.assert_close(term, expected)
        else:
            assert term.isnan()
            assert not term.requires_grad
    parts = [beta * term for beta, term in zip(betas, terms[1:], strict=True) if beta]
    torch.testing.assert_close(terms.total, sum(parts, torch.zeros((), dtype=torch.float64)))


@WIDTHS
@BETAS
def test_total_and_terms_have_the_gradients_of_separate_losses(backend, d_s, d_t, betas):
    criterion = weighted(d_s, d_t, betas, backend=backend).double()
    z_s, z_t = inputs(d_s, d_t)
    terms = criterion(z_s, z_t, return_terms=True)
    of_total = gradients_of(terms.total, criterion, z_s, z_t)
    for ours, expected in zip(of_total, gradients_of(criterion(z_s, z_t), criterion, z_s, z_t), strict=True):
        assert torch.equal(ours, expected)
    for term, beta, loss in zip(terms[1:], betas, separate_losses(criterion, z_s, z_t), strict=True):
        if beta:
            expected = gradients_of(loss, criterion, z_s, z_t)
            torch.testing.assert_close(gradients_of(term, criterion, z_s, z_t), expected)
            assert expected[0].any()


@WIDTHS
@BETAS
def test_terms_mean_what_they_do_in_itrd_loss(backend, d_s, d_t, betas):
    criterion = weighted(d_s, d_t, betas, alpha=1.2, backend=backend)
    z_s, z_t = inputs(d_s, d_t, torch.float32)
    terms = criterion(z_s, z_t, return_terms=True)
    settings = {"alpha": 1.2, "beta_corr": betas[0], "beta_mi": betas[1], "backend": backend}
    expected = itrd_loss(criterion.embed(z_s), z_t, z_s if d_s == d_t else None, **settings)
    for ours, theirs in zip(terms, expected, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        assert ours.dtype == theirs.dtype == torch.float32


def test_total_and_terms_take_one_forward_and_one_backward(backend):
    criterion = FusedITRDLoss(6, 8, backend=backend)
    z_s, z_t = inputs(6, 8, torch.float32)
    with Counting() as counted:
        terms = criterion(z_s, z_t, return_terms=True)
        (terms.total + 3 * terms.correlation + terms.mutual_information.square()).backward()
    assert counted.seen == [f"itrd_{backend}.forward.default", f"itrd_{backend}.backward.default"]


def test_an_unused_embedding_gets_zeros_from_a_term_too(backend):
    criterion = FusedITRDLoss(6, 6, beta_corr=0.0, backend=backend)
    criterion(*inputs(6, 6, torch.float32), return_terms=True).mutual_information.backward()
    assert all(p.grad is not None and not p.grad.any() for p in criterion.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_terms_under_autocast(backend, dtype):
    criterion = FusedITRDLoss(6, 8, backend=backend)
    z_s, z_t = inputs(6, 8, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        terms, total = criterion(z_s, z_t, return_terms=True), criterion(z_s, z_t)
    assert torch.equal(terms.total, total)
    assert all(term.dtype == torch.float32 for term in terms)
    # In float32 they come out otherwise: autocast did reach the embedding.
    assert not torch.equal(total, criterion(z_s, z_t))


@WIDTHS
@BETAS
@pytest.mark.parametrize("name", ["auto", "reference"])
def test_terms_in_one_graph(d_s, d_t, betas, name):
    torch._dynamo.reset()
    criterion = weighted(d_s, d_t, betas, backend=name)
    compiled = torch.compile(lambda *z: criterion(*z, return_terms=True), fullgraph=True, backend="aot_eager")
    z_s, z_t = inputs(d_s, d_t, torch.float32)
    expected, actual = criterion(z_s, z_t, return_terms=True), compiled(z_s, z_t)
    assert type(actual) is ITRDTerms
    torch.testing.assert_close(tuple(actual), tuple(expected), equal_nan=True)
    for ours, plain in zip(actual, expected, strict=True):
        if plain.requires_grad:
            grads = [gradients_of(scalar, criterion, z_s, z_t) for scalar in (ours, plain)]
            torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@WIDTHS
def test_terms_method_gives_both_whatever_the_weights(backend, d_s, d_t):
    criterion = FusedITRDLoss(d_s, d_t, 0.0, 0.75, backend=backend).double()
    z_s, z_t = inputs(d_s, d_t)
    torch.testing.assert_close(criterion.terms(z_s, z_t), separate_losses(criterion, z_s, z_t))


def test_return_terms_is_a_flag_and_named():
    criterion, (z_s, z_t) = FusedITRDLoss(6, 8), inputs(6, 8, torch.float32)
    with pytest.raises(TypeError, match="return_terms must be True or False, got 'yes' of type str"):
        criterion(z_s, z_t, return_terms="yes")
    with pytest.raises(TypeError, match="positional"):
        criterion(z_s, z_t, True)
