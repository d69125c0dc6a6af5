"""The products of the reference formulas, which autocast would compute in half precision."""

import torch
from torch import Tensor

from itrd_kernels import checks


def product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of (n, d) and (m, d) in the type of its inputs, forwards and backwards, whatever autocast says.

    Every other operation of the formulas keeps to its inputs' type, or goes to float32, by itself.
    """
    if torch.compiler.is_compiling():
        # Tracing refuses one tensor in two places.
        return _TracedProduct.apply(a, b.view_as(b))
    return _Product.apply(a, b)


class _TracedProduct(torch.autograd.Function):
    """What torch.compile can trace."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return _without_autocast(a, b)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        # ∂/∂a = g b, ∂/∂b = gᵀ a
        return _without_autocast(g, b.T), _without_autocast(g.T, a.T)


class _Product(_TracedProduct):
    """With derivatives of every order and kind."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return product(g, b.T), product(g.T, a.T)

    @staticmethod
    def jvp(ctx, da: Tensor, db: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        return product(da, b) + product(a, db)


def _without_autocast(a: Tensor, b: Tensor) -> Tensor:
    # What is traced now may run under autocast later.
    tracing = torch.compiler.is_compiling() and checks.can_autocast(a.device.type)
    if not (tracing or checks.autocasts(a.device.type)):
        return a @ b.T
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T
