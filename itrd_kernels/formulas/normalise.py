"""Columns of mean 0 and deviation 1, rows of norm 1; what is dead becomes zero."""

import torch
from torch import Tensor


def at_least_float32(z: Tensor) -> Tensor:
    """Half-precision features in float32."""
    return z if z.dtype == torch.float64 else z.float()


def normalise_columns(z: Tensor) -> Tensor:
    """(z − μ)/σ per column, σ with n−1; a dead column (all entries equal to the first) gives zeros."""
    dead = (z == z[0]).all(0) & z[0].isfinite()
    z = _divide_by_largest(z, 0)
    centred = z - z.mean(0)
    sigma = (centred.square().sum(0) / (z.shape[0] - 1)).where(~dead, 1.0).sqrt()
    return (centred / sigma).where(~dead, 0.0)


def normalise_rows(z: Tensor) -> Tensor:
    """z/‖z‖₂ per row; a zero row stays zero."""
    z = _divide_by_largest(z, 1)
    square = z.square().sum(1, keepdim=True)
    return z / square.where(square != 0, 1.0).sqrt()


def _divide_by_largest(z: Tensor, dim: int) -> Tensor:
    """Bring a row or column to order one, which its normalised form does not feel, so that squares stay in range."""
    largest = z.detach().abs().amax(dim, keepdim=True)
    return z / largest.where(largest != 0, 1.0)
