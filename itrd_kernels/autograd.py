"""The autograd Functions: what is saved for the backward pass and what comes back, nothing else.

The gradient of the Gram term is formed in the forward pass (in float32 at least) and saved. A backward pass that must
itself be differentiable (`create_graph=True`) goes through the reference formula.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from itrd_kernels import dispatch
from itrd_kernels.dispatch import Settings
from itrd_kernels.formulas import itrd
from itrd_kernels.pair_losses.base import PairLoss, Parameters

# (z_e, z_t, z_s or None) → what came out of a Function, (total, …), as plain formulas.
Terms = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, ...]]


class ITRDFunction(torch.autograd.Function):
    """(z_e, z_t, z_s or None, settings) → (total, correlation, mutual_information)."""

    @staticmethod
    def forward(ctx, z_e: Tensor, z_t: Tensor, z_s: Tensor | None, settings: Settings):
        total, correlation, mutual_information, *saved = dispatch.forward(z_e, z_t, z_s, settings)
        ctx.save_for_backward(z_e, z_t, z_s, *saved)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        # A term that was not computed is NaN, and asking for its gradient must fail loudly.
        if not settings.beta_corr:
            ctx.mark_non_differentiable(correlation)
        if not settings.beta_mi:
            ctx.mark_non_differentiable(mutual_information)
        return total, correlation, mutual_information

    @staticmethod
    def backward(ctx, *upstream: Tensor | None):
        return *_gradients(ctx, *upstream), None


class TotalFunction(torch.autograd.Function):
    """(z_e, z_t, z_s or None, settings) → total: ITRDFunction with two outputs fewer for autograd to look after."""

    @staticmethod
    def forward(ctx, z_e: Tensor, z_t: Tensor, z_s: Tensor | None, settings: Settings):
        total, _, _, *saved = dispatch.forward(z_e, z_t, z_s, settings)
        ctx.save_for_backward(z_e, z_t, z_s, *saved)
        ctx.settings = settings
        return total

    @staticmethod
    def backward(ctx, g: Tensor):
        return *_gradients(ctx, g, None, None), None


class _OneTermFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z_s: Tensor, z_t: Tensor, settings: Settings):
        return TotalFunction.forward(ctx, z_s, z_t, None, settings)

    @staticmethod
    def backward(ctx, g: Tensor):
        grad_s, grad_t, _ = _gradients(ctx, g, None, None)
        return grad_s, grad_t, None


class CorrelationFunction(_OneTermFunction):
    """(z_s, z_t, settings with weights 1 and 0) → L_corr."""


class GramFunction(_OneTermFunction):
    """(z_s, z_t, settings with weights 0 and 1) → L_mi."""


class PairFunction(torch.autograd.Function):
    """(z_s, z_t, settings with weights 0 and 1, loss, its parameters) → the loss of all pairs of rows."""

    @staticmethod
    def forward(ctx, z_s: Tensor, z_t: Tensor, settings: Settings, loss: PairLoss, parameters: Parameters):
        result = loss.evaluate(dispatch.Sweep(z_s, z_t, settings), z_s, z_t, *parameters)
        ctx.save_for_backward(z_s, z_t, None, z_t.new_empty(0), result.dgram_s, result.dgram_t)
        ctx.settings, ctx.loss, ctx.parameters = settings, loss, parameters
        return result.loss.to(torch.promote_types(z_t.dtype, torch.float32))

    @staticmethod
    def backward(ctx, g: Tensor):
        formula, parameters = ctx.loss.formula, ctx.parameters
        grad_s, grad_t, _ = _gradients(ctx, g, None, None, terms=lambda s, t, _: (formula(s, t, *parameters),))
        return grad_s, grad_t, None, None, None


def _gradients(
    ctx, *upstream: Tensor | None, terms: Terms | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (z_e, z_t, z_s), None for those that were not wanted; `terms` is the formula of what came out."""
    settings: Settings = ctx.settings
    z_e, z_t, z_s, moments, dgram_s, dgram_t = ctx.saved_tensors
    if torch.is_grad_enabled():
        return _differentiable_gradients(upstream, z_e, z_t, z_s, settings, terms or _itrd_terms(settings))
    grad_e, grad_t, grad_s = dispatch.backward(upstream, z_e, z_t, z_s, moments, dgram_s, dgram_t, settings)
    return (
        grad_e if settings.want_e else None,
        grad_t if settings.want_t else None,
        grad_s if settings.want_s else None,
    )


def _itrd_terms(settings: Settings) -> Terms:
    alpha, beta_corr, beta_mi, log = settings.alpha, settings.beta_corr, settings.beta_mi, settings.log
    return lambda z_e, z_t, z_s: itrd.terms(z_e, z_t, z_s, alpha, beta_corr, beta_mi, log)


def _differentiable_gradients(upstream, z_e, z_t, z_s, settings: Settings, terms: Terms):
    """The same gradients with a graph of their own, from the reference formula."""
    # Aliases, since one input may be computed from another, or be the same tensor: each gradient is of one place alone.
    z_e, z_t, z_s = (z if z is None else z.view_as(z) for z in (z_e, z_t, z_s))
    wanted = [z for z, want in ((z_e, settings.want_e), (z_t, settings.want_t), (z_s, settings.want_s)) if want]
    outputs = [(term, g) for term, g in zip(terms(z_e, z_t, z_s), upstream, strict=False) if g is not None]
    grads = iter(
        torch.autograd.grad(
            [term for term, _ in outputs],
            wanted,
            [g for _, g in outputs],
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    return tuple(next(grads) if want else None for want in (settings.want_e, settings.want_t, settings.want_s))
