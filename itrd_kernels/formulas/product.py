"""The products of the reference formulas, which autocast would compute in half precision."""

import torch
from torch import Tensor

from itrd_kernels.autocast import autocasts


def product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of (n, d) and (m, d) in the type of its inputs, forwards and backwards, whatever autocast says.

    Every other operation of the formulas keeps to its inputs' type, or goes to float32, by itself.
    """
    compiling = torch.compiler.is_compiling()
    if not (compiling or _transformed()):
        return _Product.apply(a, b)
    # In graphs and under torch.func a Function has no derivatives of every order and kind, but PyTorch's products have.
    # Autocast leaves float64 alone, in those derivatives too, whenever they are taken. Compiled ones are taken under
    # the autocast of their forward pass, without which they need no float64.
    kind = a.device.type
    if kind in ("mps", "xla") or (compiling and not (autocasts(kind) or torch.compiler.is_exporting())):
        return _without_autocast(a, b)
    return (a.double() @ b.double().T).to(a.dtype)


def _transformed() -> bool:
    """Whether torch.func or make_fx sees the operators that are called now."""
    return torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0


class _Product(torch.autograd.Function):
    """With derivatives of every order, backwards and one level forwards."""

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
        return product(g, b.T), product(g.T, a.T)

    @staticmethod
    def jvp(ctx, da: Tensor, db: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        return product(da, b) + product(a, db)


def _without_autocast(a: Tensor, b: Tensor) -> Tensor:
    if not autocasts(a.device.type):
        return a @ b.T
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T
